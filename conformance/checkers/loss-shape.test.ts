import fc from 'fast-check';
import t from 'tap';
import { HistoryBuilder } from '../fixtures/history-builder.js';
import type { HistoryEvent, Untimed } from '../history/events.js';
import { describeShapes, lossShapes, placeOf, shapeFigures, shapesOf } from './loss-shape.js';
import { lossesOf } from './losses.js';

t.test('the place of the losses of a producer has a name', async (t) => {
  const place = (text: string) => placeOf([...text].map((letter) => letter === 'x'));
  t.same(['....', 'x...', 'xx..', '.xx.', '...x', 'x..x', '.x.x', 'xxxx', 'x', ''].map(place), [
    ...['none', 'prefix', 'prefix', 'middle', 'suffix', 'scattered', 'scattered', 'all', 'suffix', 'none'],
  ]);
});

/** Two producers submit in turn; a crash after each `perCrash` messages takes the messages of `lost`. */
function history(count: number, perCrash: number, lost: ReadonlySet<string>): HistoryBuilder {
  const builder = new HistoryBuilder().start('kill').install(1);
  const taken: string[] = [];
  for (let number = 0; number < count; number++) {
    for (const producer of [0, 1]) {
      const id = `1-${producer}-${number}`;
      builder.submit(id, 'confirmed', 1, producer);
      if (lost.has(id)) taken.push(id);
      else builder.deliver(id).consume();
    }
    if ((number + 1) % perCrash === 0) builder.crash();
  }
  return builder.drain();
}

t.test('losses are described for each producer, by their place before the fault', async (t) => {
  const lost = new Set(['1-0-8', '1-0-9', '1-1-3', '1-1-4']);
  const { events } = history(20, 10, lost);
  const shapes = lossShapes(events, lossesOf(events));
  t.match(shapes, [
    { round: 1, producer: 0, injection: 1, confirmed: 10, lost: 2, place: 'suffix' },
    { round: 1, producer: 1, injection: 1, confirmed: 10, lost: 2, place: 'middle' },
  ]);
  t.equal(
    describeShapes(shapes),
    'producer 0 lost the last 2 of 10 (a suffix); producer 1 lost 2 of 10 in the middle',
  );
  t.same(shapeFigures(shapes), { producersLostSuffix: 1, producersLostMiddle: 1 });
});

t.test(
  'the messages of a producer count up to the moment at which the kit last took a node down',
  async (t) => {
    const builder = new HistoryBuilder().startOver('nats').install(1, ['a', 'b', 'c']);
    builder.submitTo('b', '1').state(['a-b', 'a-c']).submitTo('b', '2').state(['a-b', 'a-c'], ['c']);
    builder.state([], ['b']).submitTo('a', '3').state();
    const { events } = builder
      .crash({ fault: 'cut-then-elect', scope: 'machine', nodes: ['c'] })
      .submitAndConsume('4')
      .deliver('1')
      .consume()
      .deliver('3')
      .consume()
      .drain();
    t.equal(describeShapes(shapesOf(events, ['2'])), 'producer 0 lost the last 1 of 2 (a suffix)');
  },
);

t.test('many producers are counted, and only a few named', async (t) => {
  const builder = new HistoryBuilder().start('kill').install(1);
  for (let producer = 0; producer < 9; producer++)
    builder.submit(`1-${producer}-0`, 'confirmed', 1, producer);
  const { events } = builder.crash().drain();
  const text = describeShapes(lossShapes(events, lossesOf(events)));
  t.match(text, /^producer 0 lost the last 1 of 1 .*; 3 more producers lost messages$/);
  t.equal(describeShapes([]), '');
});

t.test('every lost message is counted once, for the injection that took it', async (t) => {
  const runs = fc.record({
    count: fc.integer({ min: 1, max: 30 }),
    perCrash: fc.integer({ min: 1, max: 30 }),
    lost: fc.uniqueArray(
      fc.tuple(fc.nat(1), fc.nat(29)).map(([producer, number]) => `1-${producer}-${number}`),
    ),
  });
  fc.assert(
    fc.property(runs, ({ count, perCrash, lost }) => {
      const { events } = history(count, perCrash, new Set(lost));
      const losses = lossesOf(events);
      const shapes = lossShapes(events, losses);
      const total = shapes.reduce((sum, shape) => sum + shape.lost, 0);
      return total === losses.size && shapes.every(({ lost, confirmed }) => lost > 0 && lost <= confirmed);
    }),
  );
  t.pass('in every run that was tried');
});

t.test('a history of which some messages are only counted has no shapes', async (t) => {
  const { events } = history(20, 10, new Set(['1-0-8'])).append(UNEVENTFUL);
  t.equal(lossesOf(events).size, 1);
  t.same(lossShapes(events, lossesOf(events)), []);
});

const UNEVENTFUL: Untimed<HistoryEvent> = {
  ...{ kind: 'uneventful', events: 4, confirmed: 1, confirmedAfterDelivery: 0 },
  ...{ rejected: 0, indefinite: 0, delivered: 1, consumed: 1 },
};

import t from 'tap';
import { evaluate } from '../../conformance/checkers/evaluate.js';
import { GUARANTEE } from '../../conformance/fixtures/cases.js';
import { HistoryBuilder } from '../../conformance/fixtures/history-builder.js';
import { orderCause } from './order-cause.js';
import { violationCauses } from './violation-causes.js';
import { violationStory } from './violation-story.js';

const TARGET = { guarantee: { ...GUARANTEE, faults: ['kill' as const], order: 'per-producer' as const } };
const story = (crash: boolean) => {
  const history = new HistoryBuilder().start('kill').submit('1').submit('2').submit('3');
  if (crash) history.crash();
  for (const id of ['3', '1', '2']) history.deliver(id).consume();
  return history.drain().events;
};

t.test('the cause of a wrong order names two messages and the crash', async (t) => {
  const events = story(true);
  const evaluation = evaluate(events, TARGET);
  const causes = violationCauses(events, [], evaluation);
  t.match(causes, [
    {
      kind: 'reordered',
      sentence:
        /^after kill 1 message 3 came before message 1, which producer 0 had submitted earlier; 1 more/,
      fix: /sort/,
      messages: ['1', '2'],
      fault: { kind: 'fault', injection: 1 },
      requirements: ['PP-20'],
    },
  ]);
  t.same(
    causes[0]?.facts.map((fact) => fact.replace(/^\S+ s {2}/, '')),
    [
      'producer 0 submits message 1',
      'message 1 is confirmed',
      'producer 0 submits message 3',
      'kill 1',
      'message 3 is delivered for the first time',
      'message 1 is delivered for the first time',
    ],
  );
  t.match(
    violationStory(events, evaluation).at(-1),
    /PP-20: delivery 2 was its first, after delivery 1 of message 3,.*; kill 1 came before both deliveries/,
  );
});

t.test(
  'the story of a late message has the message that came before it, and the crash that lay between',
  async (t) => {
    const history = new HistoryBuilder().start('kill').submit('1').submit('2').crash();
    const { events } = history.crash().deliver('2').consume().crash().deliver('1').consume().drain();
    const lines = violationStory(events, evaluate(events, TARGET)).map((line) =>
      line.replace(/^ *\S+ s {2}/, ''),
    );
    t.same(lines.slice(0, -1), [
      'message 1 submitted, 10 bytes',
      'confirmed: confirmed',
      'kill 2: ',
      'message 2 delivered, which was submitted later',
      'delivered, as delivery 2',
    ]);
  },
);

t.test('a wrong order without a crash says so', async (t) => {
  const events = story(false);
  t.match(orderCause(events, evaluate(events, TARGET).findings), [
    { sentence: /^without a crash /, fault: undefined },
  ]);
});

t.test('an order that the target does not claim has no cause', async (t) => {
  const { order: _, ...guarantee } = TARGET.guarantee;
  const events = story(true);
  t.same(orderCause(events, evaluate(events, { guarantee }).findings), []);
});

import fc from 'fast-check';
import t from 'tap';
import { placeOf } from '../../../conformance/checkers/loss-shape.js';
import { fromDeltas, TICKS_PER_MS, toDeltas, toTicks } from './columns.js';

t.test('a column of integers is the same after it was packed as JSON and read again', async (t) => {
  let columns = 0;
  fc.assert(
    fc.property(fc.array(fc.integer({ min: -(2 ** 40), max: 2 ** 40 })), (values) => {
      columns += 1;
      const read = fromDeltas(JSON.parse(JSON.stringify(toDeltas(values))));
      t.same([...read], values);
    }),
  );
  t.ok(columns >= 100);
});

t.test('a time is at most half a tick away from its tick', async () => {
  fc.assert(
    fc.property(fc.double({ min: 0, max: 1e9, noNaN: true }), (ms) => {
      const error = Math.abs(toTicks(ms) / TICKS_PER_MS - ms);
      return error <= 0.5 / TICKS_PER_MS + 1e-6;
    }),
  );
});

t.test('the place of losses among the confirmed messages of a producer is named', async (t) => {
  const place = (text: string) => placeOf([...text].map((letter) => letter === 'x'));
  t.equal(place('....'), 'none');
  t.equal(place(''), 'none');
  t.equal(place('xx..'), 'prefix');
  t.equal(place('.xx.'), 'middle');
  t.equal(place('..xx'), 'suffix');
  t.equal(place('x.x.'), 'scattered');
  t.equal(place('xxxx'), 'all');
});

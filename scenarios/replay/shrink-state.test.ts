import fc from 'fast-check';
import t from 'tap';
import { CrashModel } from '../../faults/write-log/model.js';
import { type CrashState, formatState } from '../../faults/write-log/state.js';
import { describeState, missingEntries } from '../explore/result/missing-writes.js';
import { shrinkState } from './shrink-state.js';

/** Makes the model of a log of 4096-byte writes, with flushes as the given entries. */
function modelOf(count: number, flushes: readonly number[]): CrashModel {
  return new CrashModel(
    Array.from({ length: count }, (_, index) => ({
      index,
      offset: index * 4096,
      lengthBytes: flushes.includes(index) ? 0 : 4096,
      flush: flushes.includes(index),
      fua: false,
      discard: false,
      metadata: false,
      mark: undefined,
      dataAt: 0,
    })),
  );
}

t.test('only the writes that have to be missing stay missing, at the same cut', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 3, max: 40 }),
      fc.integer({ min: 0, max: 2 }),
      fc.array(fc.nat(1000), { maxLength: 4 }),
      async (count, flush, picks) => {
        const model = modelOf(count, [flush]);
        const optional = model.optional(count);
        const needed = new Set(picks.map((pick) => optional[pick % Math.max(1, optional.length)] ?? -1));
        needed.delete(-1);
        const state: CrashState = { prefix: count, kept: [], torn: new Map() };
        const fails = async (smaller: CrashState) => {
          if (model.whyImpossible(smaller) !== undefined) throw new Error(formatState(smaller));
          const missing = missingEntries(model, smaller);
          return [...needed].every((entry) => missing.includes(entry));
        };
        const smallest = await shrinkState(model, state, fails);
        return (
          smallest.prefix === count &&
          missingEntries(model, smallest).join() === [...needed].sort((a, b) => a - b).join()
        );
      },
    ),
  );
  t.pass('this holds in every generated case');
});

t.test(
  'a torn write stays torn if the failure needs it, and the write at the cut stays as it was',
  async (t) => {
    const model = modelOf(8, [2]);
    const state: CrashState = {
      prefix: 6,
      kept: [4],
      torn: new Map([
        [3, [0, 1]],
        [6, [2]],
      ]),
    };
    const smallest = await shrinkState(model, state, async ({ torn }) => torn.has(3));
    t.equal(formatState(smallest), '6+4-5~3:0-1~6:2');
    t.equal(model.whyImpossible(smallest), undefined);
    t.equal(
      describeState(model, smallest),
      'cut after 6 requests to the disk, the last flush was entry 2; torn: 3',
    );
  },
);

t.test('a failure that needs no missing write shrinks to a state without missing writes', async (t) => {
  const model = modelOf(6, [1]);
  const smallest = await shrinkState(model, { prefix: 6, kept: [], torn: new Map() }, async () => true);
  t.same(missingEntries(model, smallest), []);
  t.match(describeState(model, smallest), /every write that was complete had reached the medium/);
  const all = { prefix: 6, kept: [], torn: new Map() };
  t.match(describeState(model, all), /not yet flushed and gone: 2-5$/);
});

import fc from 'fast-check';
import t from 'tap';
import { BodyBuffer, SegmentPool } from './body-buffer.js';
import { DataReader } from './data-reader.js';
import { MemoryBudget } from './memory-budget.js';

const LIMIT_BYTES = 200_000;

t.test(
  'a body is returned as it was appended, and its holding counts at most one segment more',
  async (t) => {
    const pool = new SegmentPool();
    const budget = new MemoryBudget(1e9);
    const chunk = fc
      .oneof(fc.nat(300), fc.nat(40_000), fc.constantFrom(1024, 4096, 16_384))
      .map((length) => Buffer.from(Array.from({ length }, (_, at) => (at * 7 + length) & 0xff)));
    fc.assert(
      fc.property(fc.array(chunk, { maxLength: 12 }), fc.boolean(), (chunks, isTaken) => {
        const holding = budget.open(() => undefined);
        const body = new BodyBuffer(holding, pool);
        for (const one of chunks) t.ok(body.append(one));
        const expected = Buffer.concat(chunks);
        t.equal(body.sizeBytes, expected.length);
        t.ok(holding.sizeBytes >= expected.length && holding.sizeBytes <= expected.length + 16_384);
        if (isTaken) {
          t.ok(body.take().equals(expected));
          t.equal(holding.sizeBytes, expected.length);
        } else body.drop();
        holding.release();
        t.equal(budget.usedBytes, 0);
      }),
      { numRuns: 60 },
    );
  },
);

t.test('when the budget is used up, the largest message gives way, but never to a larger one', async (t) => {
  const budget = new MemoryBudget(100);
  const evicted: string[] = [];
  const open = (name: string, sizeBytes: number) => {
    const holding = budget.open(() => evicted.push(name));
    t.equal(holding.take(sizeBytes), true, `${name} takes ${sizeBytes}`);
    return holding;
  };
  const stored = open('stored', 35);
  stored.isPinned = true;
  const large = open('large', 30);
  const medium = open('medium', 20);
  open('small', 10);
  t.equal(large.take(10), false, 'the largest message gets no more');
  t.equal(budget.hasRoomFor(10), true, 'larger ones would give way');
  t.equal(budget.hasRoomFor(60), false);
  t.equal(medium.take(6), true);
  t.strictSame(evicted, ['large'], 'a message that is being stored does not give way');
  t.equal(budget.usedBytes, 71);
  medium.release();
  medium.release();
  t.equal(budget.usedBytes, 45);
});

t.test('a message of dot lines takes as much memory as any other of its size', async (t) => {
  const wire = Buffer.from('..\r\n'.repeat(16_384));
  const budget = new MemoryBudget(1e9);
  const reader = new DataReader(
    1e8,
    new BodyBuffer(
      budget.open(() => undefined),
      new SegmentPool(),
    ),
  );
  const used = () => {
    const { heapUsed, arrayBuffers } = process.memoryUsage();
    return heapUsed + arrayBuffers;
  };
  const before = used();
  for (let sentBytes = 0; sentBytes < 20_900_000; sentBytes += wire.length) reader.take(Buffer.from(wire));
  // The message has 15.7 MB. The chunks wait for the garbage collector. A Buffer for each line takes 500 MB.
  t.ok(used() - before < 150e6, `${used() - before} bytes`);
  t.ok(budget.usedBytes < 15.8e6);
  reader.take(Buffer.from('.\r\n'));
  const message = reader.result();
  t.equal(message.kind === 'data' && message.data.length, budget.usedBytes);
});

t.test('a message that will be refused is not kept', async (t) => {
  for (const [wire, kind] of [
    ['a\nb\r\n', 'bare-line-end'],
    ['x'.repeat(LIMIT_BYTES + 1), 'too-large'],
  ] as const) {
    const budget = new MemoryBudget(1e9);
    const reader = new DataReader(
      LIMIT_BYTES,
      new BodyBuffer(
        budget.open(() => undefined),
        new SegmentPool(),
      ),
    );
    reader.take(Buffer.from('good\r\n'));
    reader.take(Buffer.from(wire));
    t.equal(budget.usedBytes, 0, kind);
    reader.take(Buffer.from('more\r\n.\r\n'));
    t.equal(reader.result().kind, kind);
  }
});

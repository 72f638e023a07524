import fc from 'fast-check';
import t from 'tap';
import type { QueueSnapshot } from '../memory/memory-queue.js';
import { encodeSlot, parseSlotName, readSlot, slotPath } from './slot.js';

const seed = { key: { low: 0x12345678, high: 0x9abcdef0 }, queue: 2 ** 33 + 5, checkpoint: 77 };

function snapshot(messages: { id: string; body: Buffer }[]): QueueSnapshot {
  return {
    definition: { name: 'mine', order: 'strict' },
    messages: messages.map(({ id, body }, at) => ({
      id,
      body,
      number: 2 ** 32 + at,
      next: undefined,
      previous: undefined,
    })),
    redoPosition: 2 ** 34,
  };
}

const encode = (messages: { id: string; body: Buffer }[]): Buffer =>
  Buffer.concat([...encodeSlot(seed, snapshot(messages), 9)]);

const plain = ({ messages }: ReturnType<typeof readSlot>) =>
  messages.map(({ id, body }) => ({ id, body: body.toString('hex') }));

t.test('any messages are read as they were written', async (t) => {
  fc.assert(
    fc.property(
      fc.array(
        fc.record({
          id: fc.string({ unit: 'grapheme', minLength: 1, maxLength: 40 }),
          body: fc.uint8Array({ maxLength: 500 }),
        }),
        { maxLength: 20 },
      ),
      (list) => {
        const messages = list.map(({ id, body }) => ({ id, body: Buffer.from(body) }));
        const read = readSlot(encode(messages), seed);
        return (
          read.damaged.length === 0 &&
          read.header?.count === messages.length &&
          JSON.stringify(plain(read)) ===
            JSON.stringify(messages.map(({ id, body }) => ({ id, body: body.toString('hex') })))
        );
      },
    ),
    { numRuns: 200 },
  );
  t.match(readSlot(encode([]), seed).header, {
    redo: 2 ** 34,
    generation: 9,
    queue: seed.queue,
    checkpoint: 77,
  });
});

t.test(
  'damage at any byte is named, nothing wrong is delivered, and the other messages survive',
  async (t) => {
    const messages = Array.from({ length: 4 }, (_, at) => ({
      id: `id-${at}`,
      body: Buffer.alloc(37, `${at}`),
    }));
    const bytes = encode(messages);
    const whole = plain(readSlot(bytes, seed));
    const used = new Set<number>();
    for (let at = 0; at < bytes.length; at += 1) {
      const damaged = Buffer.from(bytes);
      damaged[at] = (damaged[at] ?? 0) ^ 0x55;
      const read = readSlot(damaged, seed);
      const found = plain(read);
      t.ok(
        found.every((one) => whole.some(({ id, body }) => one.id === id && one.body === body)),
        `byte ${at}`,
      );
      const isNamed = read.header === undefined || read.damaged.length > 0;
      if (isNamed) used.add(at);
      else t.same(found, whole, `byte ${at} is not used`);
      t.ok(found.length >= whole.length - 1);
    }
    t.ok(used.size > bytes.length * 0.85, `${used.size} of ${bytes.length} bytes count`);
  },
);

t.test('a slot that ends at any byte says what is missing', async (t) => {
  const messages = Array.from({ length: 3 }, (_, at) => ({
    id: `id-${at}`,
    body: Buffer.alloc(30, `${at}`),
  }));
  const bytes = encode(messages);
  for (let length = 0; length < bytes.length - 7; length += 1) {
    const read = readSlot(bytes.subarray(0, length), seed);
    t.ok(read.header === undefined || read.damaged.length > 0, `${length} bytes`);
  }
});

t.test('a slot of another queue, checkpoint or key, and a slot inside of a message, are none', async (t) => {
  const inner = encode([{ id: 'inner', body: Buffer.from('evil') }]);
  const bytes = encode([
    { id: 'outer', body: inner },
    { id: 'shifted', body: Buffer.concat([Buffer.alloc(4), inner]) },
  ]);
  for (const other of [
    { ...seed, queue: 1 },
    { ...seed, checkpoint: 78 },
    { ...seed, key: { low: 1, high: seed.key.high } },
    { ...seed, key: { low: seed.key.low, high: 1 } },
  ])
    t.same(readSlot(bytes, other).messages, []);
  const damaged = Buffer.from(bytes);
  const first = damaged.indexOf('PPCM');
  damaged.fill(0, first, first + 32);
  const read = readSlot(damaged, seed);
  t.same(
    read.messages.map(({ id }) => id),
    ['shifted'],
    'what a sender has put into a body is no message',
  );
});

t.test('a large message has a piece of its own', async (t) => {
  const messages = [
    { id: 'a', body: Buffer.alloc(10) },
    { id: 'b', body: Buffer.alloc(3_000_000, 7) },
    { id: 'c', body: Buffer.alloc(0) },
  ];
  t.same(
    plain(readSlot(encode(messages), seed)).map(({ id }) => id),
    ['a', 'b', 'c'],
  );
});

t.test('names of slots are read', async (t) => {
  t.same(parseSlotName(slotPath('', 2 ** 40, 1)), { queue: 2 ** 40, slot: 1 });
  for (const name of ['x', '0000000000000001.2', '1.0', '0000000000000001.0.new'])
    t.equal(parseSlotName(name), undefined);
});

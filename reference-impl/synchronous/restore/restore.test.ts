import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import t from 'tap';
import { MemoryData } from '../../common/platform/fixtures/memory-data.js';
import { bodySeed, checksum } from '../../common/record/checksum.js';
import { checkLists } from '../index/check.js';
import { memoryIndex } from '../index/fixtures/memory-image.js';
import { IndexImage } from '../index/image.js';
import { ENTRIES_OFFSET, ENTRY, FIELD, PARKED_BIT, STATUS } from '../index/layout.js';
import { isConsumed } from '../index/marks.js';
import { decodeBody } from '../record/codec.js';
import { RING_START } from '../record/data-file.js';
import { KEY, putRecord, smtp } from '../record/fixtures/memory-data.js';
import { generationPages, putGeneration, readGeneration } from '../record/generation.js';
import { SIGNATURE_WORD, SLOT_BYTES } from '../record/layout.js';
import { bodyOf, eraseRecord, readSlot } from '../record/record.js';
import { seedAt } from '../record/seed.js';
import { type Message, ModelledQueue } from './fixtures/modelled-queue.js';
import { planRestore, type RestorePlan } from './plan.js';

const PAGE = 4096;

const step = fc.record({
  what: fc.constantFrom('store', 'store', 'store', 'reserve', 'tear', 'consume', 'consume', 'copy'),
  n: fc.nat(1000),
  size: fc.oneof(fc.nat(100), fc.nat(1500)),
});
const history = fc.array(step, { minLength: 15, maxLength: 70 });

/** Plays a history on the queue. @returns copies of the index from some moments of the history. */
function play(
  world: ModelledQueue,
  steps: readonly { what: string; n: number; size: number }[],
): Uint8Array[] {
  const copies: Uint8Array[] = [memoryIndex(world.geometry)];
  for (const { what, n, size } of steps) {
    const ready = world.ready();
    if (what === 'copy') copies.push(world.index.slice());
    else if (what === 'consume') {
      const message = ready[n % Math.max(1, ready.length)];
      if (message) world.consume(message);
    } else {
      const before = Buffer.from(world.data.bytes);
      const message = world.store('x'.repeat(size));
      if (message && what === 'store') world.confirm(message);
      if (message && what === 'tear') world.tear(message, before, n);
    }
  }
  return copies;
}

const byOffset = (messages: readonly Message[]): string[] =>
  messages.map(({ offset, number }) => `${number}@${offset}`).sort();
const aliveOf = (plan: RestorePlan): string[] =>
  plan.live.map(({ offset, number }) => `${number}@${offset}`).sort();

/** Checks the invariants that hold after every restore, whatever the index was. */
function soundness(world: ModelledQueue, plan: RestorePlan): void {
  const problems = checkLists(world.image);
  if (problems.length > 0) throw new Error(problems.join('\n'));
  for (const { offset, number } of plan.live) {
    const found = readSlot(world.data, KEY, offset);
    if (found.state !== 'valid' || found.header.number !== number) throw new Error(`${number} is not valid`);
    const stored = world.messages.find((message) => message.number === number);
    const body = decodeBody(found.header.type, bodyOf(world.data, found.header));
    if (!isDeepStrictEqual(body, stored?.body))
      throw new Error(`the body of ${number} differs from the stored body`);
  }
  for (const number of world.usedNumbers) {
    if (plan.nextNumber <= number) throw new Error(`number ${number} could be used again`);
  }
}

const repeated = (world: ModelledQueue, plan: RestorePlan): void => {
  const lists = JSON.stringify(aliveOf(plan));
  const again = world.restore(world.index);
  soundness(world, again);
  if (JSON.stringify(aliveOf(again)) !== lists) throw new Error('a second restore found other messages');
  if (again.damage.length > 0) throw new Error(`damage reported again: ${JSON.stringify(again.damage)}`);
  if (again.uncertain > 0 || again.unfinished > 0)
    throw new Error('a second restore reported uncertain or unfinished messages');
};

t.test(
  'with an intact index exactly the unconsumed messages that are confirmed or whole are restored',
  async (t) => {
    let torn = 0;
    fc.assert(
      fc.property(history, fc.boolean(), (steps, twice) => {
        const world = new ModelledQueue();
        play(world, steps);
        const expected = world.messages.filter(({ state }) => state === 'ready' || state === 'reserved');
        const plan = world.restore(world.index);
        soundness(world, plan);
        if (!isDeepStrictEqual(aliveOf(plan), byOffset(expected)))
          throw new Error(`restored ${aliveOf(plan)}`);
        // A torn record that was never confirmed is not damage.
        if (plan.damage.length + plan.uncertain > 0) throw new Error(JSON.stringify(plan));
        torn += world.torn;
        if (twice) repeated(world, plan);
      }),
      { numRuns: 200 },
    );
    t.ok(torn > 20, `${torn} records were torn`);
  },
);

/**
 * Kinds of loss and damage of an index. Each function gets the index, an older copy of it, and random
 * numbers.
 */
const damages: Record<
  string,
  (index: Uint8Array, older: Uint8Array, dice: () => number) => Uint8Array | undefined
> = {
  lost: () => undefined,
  'an old copy': (_, older) => older.slice(),
  'pages of different times': (index, older, dice) => {
    const mixed = index.slice();
    for (let page = 0; page < mixed.length; page += PAGE) {
      if (dice() < 0.5) mixed.set(older.subarray(page, page + PAGE), page);
    }
    return mixed;
  },
  'sectors of different times': (index, older, dice) => {
    const mixed = index.slice();
    for (let sector = 0; sector < mixed.length; sector += 512) {
      if (dice() < 0.3) mixed.set(older.subarray(sector, sector + 512), sector);
    }
    return mixed;
  },
  'random bytes': (index, _, dice) => index.map((byte, at) => (at < PAGE ? byte : Math.floor(dice() * 256))),
  'flipped bits': (index, _, dice) => {
    const spoilt = index.slice();
    for (let flips = 0; flips < 40; flips += 1) {
      const at = PAGE + Math.floor(dice() * (spoilt.length - PAGE));
      spoilt[at] = (spoilt[at] ?? 0) ^ (1 << Math.floor(dice() * 8));
    }
    return spoilt;
  },
  'zeroed parts': (index, _, dice) => {
    const spoilt = index.slice();
    for (let page = PAGE; page < spoilt.length; page += PAGE)
      if (dice() < 0.5) spoilt.fill(0, page, page + PAGE);
    return spoilt;
  },
  'all ones': (index) => index.map((byte, at) => (at < PAGE ? byte : 0xff)),
};

for (const [name, damage] of Object.entries(damages)) {
  t.test(
    `damaged index (${name}): no confirmed message is lost, and no message with a mark comes back`,
    async (t) => {
      let resurrected = 0;
      let restored = 0;
      fc.assert(
        fc.property(
          history,
          fc.infiniteStream(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })),
          (steps, chance) => {
            const dice = (): number => chance.next().value;
            const world = new ModelledQueue();
            const copies = play(world, steps);
            const older = copies[Math.floor(dice() * copies.length)] ?? world.index;
            const index = damage(world.index.slice(), older, dice);
            const image = index && new IndexImage(index.slice(), world.geometry);
            const plan = world.restore(index);
            soundness(world, plan);
            const alive = new Set(aliveOf(plan));
            for (const key of byOffset(world.ready())) {
              if (!alive.has(key)) throw new Error(`confirmed message ${key} is lost`);
              restored += 1;
            }
            for (const { offset, number } of world.messages.filter(({ state }) => state === 'consumed')) {
              if (!alive.has(`${number}@${offset}`)) continue;
              if (image && isConsumed(image, KEY, offset, number))
                throw new Error(`consumed message ${number} has a mark and came back`);
              resurrected += 1;
            }
            for (const { offset, number } of world.messages.filter(({ state }) => state === 'torn')) {
              if (alive.has(`${number}@${offset}`)) throw new Error(`torn message ${number} came back`);
            }
            repeated(world, plan);
          },
        ),
        { numRuns: 60 },
      );
      t.ok(
        restored > 100,
        `${restored} confirmed messages restored, ${resurrected} consumed ones resurrected`,
      );
    },
  );
}

t.test(
  'consumed messages never come back through repeated restores, unlike with rule 2 of [0026]',
  async (t) => {
    const world = new ModelledQueue();
    let consumed = 0;
    for (let round = 0; round < 30; round += 1) {
      const stored: Message[] = [];
      for (let n = 0; n < 7; n += 1) {
        const message = world.store('m'.repeat((round * 37 + n * 91) % 700));
        if (!message) continue;
        world.confirm(message);
        stored.push(message);
      }
      for (const message of stored.slice(1)) world.consume(message);
      const [kept] = stored;
      const plan = world.restore(world.index);
      t.same(aliveOf(plan), kept ? byOffset([kept]) : [], `round ${round}`);
      consumed += plan.consumed;
      const [alive] = plan.live;
      if (kept && alive) world.consume({ ...kept, entry: world.image.get(FIELD.head) });
    }
    t.ok(consumed > 30, `${consumed} whole records were recognised as consumed`);
  },
);

t.test('a new record at the offset of a consumed one is never taken for consumed', async (t) => {
  const world = new ModelledQueue();
  for (let n = 0; n < 200; n += 1) {
    const message = world.storeConfirmed('same');
    t.same(aliveOf(world.restore(world.index)), byOffset([message]));
    world.consume({ ...message, entry: world.image.get(FIELD.head) });
    message.state = 'consumed';
  }
});

t.test('restore finds a message on the disk even if last_sync of the index claims to cover it', async (t) => {
  const world = new ModelledQueue();
  const older = world.index.slice();
  const message = world.storeConfirmed('stored after the index pages that reached the disk');
  const image = new IndexImage(older, world.geometry);
  image.putWide(FIELD.lastSync, Date.now() + 1e9);
  image.putWide(FIELD.lastSyncNumber, message.number + 1);
  t.same(aliveOf(world.restore(older)), byOffset([message]));
});

t.test(
  'the newest message is the one with the highest number, even when the clock went backwards',
  async (t) => {
    const world = new ModelledQueue();
    const messages = [1, 2, 3].map(() => world.store('x'));
    for (const message of messages) if (message) world.confirm(message);
    const dates = [3_000_000_000_000, 2, 1];
    messages.forEach((message, index) => {
      if (!message) return;
      const { offset, sizeBytes } = message;
      // Give the records dates of a clock that runs backwards.
      const { bytes } = world.data;
      bytes.writeBigUInt64LE(BigInt(dates[index] ?? 0), offset + 8);
      resign(world, offset, sizeBytes);
    });
    const plan = world.restore(undefined);
    t.equal(plan.live.length, 3);
    const { image } = world;
    t.equal(image.getWide(image.entryWord(image.get(FIELD.tail)) + ENTRY.number), messages[2]?.number);
    t.equal(image.getWide(FIELD.writeOffset), (messages[2]?.offset ?? 0) + SLOT_BYTES);
  },
);

for (const [name, spoil, what] of [
  ['data', 60, 'data'],
  ['header', 20, 'header'],
  ['signature', 1, 'record gone'],
  ['trailer', -1, 'data'],
] as const) {
  t.test(`a record with a flipped bit in its ${name} is reported as damage and not restored`, async (t) => {
    const world = new ModelledQueue();
    world.storeConfirmed('before');
    const rotted = world.storeConfirmed('some text');
    world.storeConfirmed('after');
    const at = rotted.offset + (spoil < 0 ? rotted.sizeBytes + spoil : spoil);
    world.data.bytes.writeUInt8(world.data.bytes.readUInt8(at) ^ 4, at);
    const plan = world.restore(world.index);
    const { offset, number, sizeBytes } = rotted;
    t.same(plan.damage, [{ offset, number, lengthBytes: sizeBytes, what }]);
    t.same(aliveOf(plan), byOffset(world.messages.filter((message) => message !== rotted)));
    repeated(world, plan);
  });
}

t.test('a message with a flipped bit in its header is identified even without an index', async (t) => {
  const world = new ModelledQueue();
  const message = world.storeConfirmed('some text');
  world.data.bytes.writeUInt8(world.data.bytes.readUInt8(message.offset + 20) ^ 4, message.offset + 20);
  const plan = world.restore(undefined);
  const { offset, number, sizeBytes } = message;
  t.same(plan.damage, [{ offset, number, lengthBytes: sizeBytes, what: 'header' }]);
  repeated(world, plan);
});

t.test('signatures that a sender put on slot boundaries are not reported as damage', async (t) => {
  const world = new ModelledQueue();
  const message = world.storeConfirmed(`${'x'.repeat(SLOT_BYTES * 4)}`);
  for (let at = message.offset + SLOT_BYTES; at < message.offset + message.sizeBytes; at += SLOT_BYTES) {
    world.data.bytes.writeUInt32LE(SIGNATURE_WORD, at);
  }
  world.data.bytes.fill(0, message.offset, message.offset + 64);
  t.same(world.restore(undefined).damage, []);
});

t.test('retry counts and times survive a restore, but a time in the future is ignored', async (t) => {
  const world = new ModelledQueue();
  const message = world.storeConfirmed('x');
  const at = world.image.entryWord(message.entry);
  world.image.put(at + ENTRY.retryCount, 7);
  world.image.putWide(at + ENTRY.lastRetry, 1_600_000_000_000);
  t.match(world.restore(world.index).live, [{ retryCount: 7, lastRetryMs: 1_600_000_000_000 }]);
  world.image.putWide(world.image.entryWord(0) + ENTRY.lastRetry, Date.now() + 1e9);
  t.match(world.restore(world.index).live, [{ retryCount: 7, lastRetryMs: 0 }]);
});

t.test(
  'answers and the time of the first attempt survive a restore; a parked message is no longer parked',
  async (t) => {
    const world = new ModelledQueue();
    const message = world.storeConfirmed('x');
    const at = world.image.entryWord(message.entry);
    world.image.put(at + ENTRY.answered, 3 | PARKED_BIT);
    world.image.put(at + ENTRY.firstTry, 5);
    t.match(
      world.restore(world.index).live,
      [{ answered: 0 }],
      'the words have no meaning before the first attempt',
    );
    world.image.put(world.image.entryWord(0) + ENTRY.retryCount, 7);
    world.image.put(world.image.entryWord(0) + ENTRY.answered, 3 | PARKED_BIT);
    t.match(world.restore(world.index).live, [{ retryCount: 7, answered: 3, firstTry: 5 }]);
    t.equal(world.image.get(world.image.entryWord(0) + ENTRY.answered), 3);
    world.image.put(world.image.entryWord(0) + ENTRY.answered, -1);
    t.match(world.restore(world.index).live, [{ answered: 0 }], 'a damaged index has any number');
    world.image.put(world.image.entryWord(0) + ENTRY.answered, 1000);
    t.match(world.restore(world.index).live, [{ answered: 7 }], 'there are no more answers than attempts');
  },
);

t.test('the restore after a killed restore starts again and loses no message', async (t) => {
  const world = new ModelledQueue();
  for (let n = 0; n < 9; n += 1) world.storeConfirmed('x');
  const before = world.index.slice();
  world.restore(world.index);
  const after = world.index.slice();
  for (let cut = ENTRIES_OFFSET; cut < ENTRIES_OFFSET + 12 * 64; cut += 4) {
    const half = before.slice();
    half.set(after.subarray(ENTRIES_OFFSET, cut), ENTRIES_OFFSET);
    t.same(aliveOf(world.restore(half)), byOffset(world.ready()));
  }
});

t.test('every used entry is ready and unlocked after a restore', async (t) => {
  const world = new ModelledQueue();
  world.storeConfirmed('x');
  world.restore(world.index);
  const at = world.image.entryWord(0);
  t.equal(world.image.get(at + ENTRY.status), STATUS.ready);
  t.equal(world.image.get(at + ENTRY.lock), 0);
});

/** Recomputes both checksums of a record. */
function resign(world: ModelledQueue, offset: number, sizeBytes: number): void {
  const { bytes } = world.data;
  const seed = seedAt(KEY, offset);
  const headerSum = checksum(bytes, offset, offset + 28, seed);
  bytes.writeUInt32LE(headerSum, offset + 28);
  const end = offset + sizeBytes - 4;
  bytes.writeUInt32LE(checksum(bytes, offset + 32, end, bodySeed(seed, headerSum)), end);
}

/** Returns a copy of the index whose counter of message numbers is lost. */
const uncounted = (world: ModelledQueue): Uint8Array => {
  const index = world.index.slice();
  new IndexImage(index, world.geometry).putWide(FIELD.nextNumber, 0);
  return index;
};

/** Stores and consumes a message and erases its record, so that no record shows which numbers were used. */
function consumeAndErase(world: ModelledQueue): Message {
  const message = world.storeConfirmed('consumed');
  world.consume(message);
  eraseRecord(world.data, message.offset);
  return message;
}

t.test('no number is used twice, even when its record and the counter in the index are lost', async (t) => {
  const world = new ModelledQueue();
  world.restore(world.index);
  consumeAndErase(world);
  for (let restarts = 0; restarts < 4; restarts += 1) {
    world.restore(uncounted(world));
    const message = world.storeConfirmed(`after ${restarts} restarts`);
    t.same(aliveOf(world.restore(world.index)), byOffset([message]));
    world.consume(message);
    eraseRecord(world.data, message.offset);
  }
});

t.test('no number is used twice after hundreds of restarts without a message', async (t) => {
  const world = new ModelledQueue();
  consumeAndErase(world);
  for (let restarts = 0; restarts < 600; restarts += 1) {
    t.doesNotThrow(() => soundness(world, world.restore(world.index)), `restart ${restarts}`);
  }
});

t.test('after an old copy of the index is put back, no newer message is taken for consumed', async (t) => {
  const world = new ModelledQueue();
  world.restore(world.index);
  const { offset } = consumeAndErase(world);
  const copy = world.index.slice();
  world.restore(undefined);
  world.restore(world.index);
  const message = world.storeConfirmed('kept');
  t.equal(message.offset, offset, 'the message has the offset of the consumed one');
  t.same(aliveOf(world.restore(copy)), byOffset([message]));
});

t.test('the generation is read from either page, and a half-written page is ignored', async (t) => {
  const world = new ModelledQueue();
  const [first = 0, last = 0] = generationPages(world.data);
  t.equal(readGeneration(world.data), 0);
  putGeneration(world.data, first, 7);
  t.equal(readGeneration(world.data), 7);
  putGeneration(world.data, last, 8);
  t.equal(readGeneration(world.data), 8);
  world.data.bytes.writeUInt8(9, last + 520);
  t.equal(readGeneration(world.data), 7);
});

for (const [what, place] of [
  [
    'larger than any record may be',
    (entry: number) => ({ offset: entry * SLOT_BYTES, lengthBytes: 512 * 1024 }),
  ],
  ['at the same place', () => ({ offset: 0, lengthBytes: 64 * 1024 })],
  ['overlapping', (entry: number) => ({ offset: entry * SLOT_BYTES, lengthBytes: 64 * 1024 })],
] as const) {
  for (const source of ['image', 'salvaged'] as const) {
    t.test(
      `lost messages of a rotted index are all named and bounded when they are ${what} (${source})`,
      async (t) => {
        const geometry = { entries: 1024, workerSlots: 1, dataBytes: 2 ** 20 };
        const data = new MemoryData(geometry.dataBytes);
        const ring = { start: RING_START, end: geometry.dataBytes - PAGE };
        const index = new IndexImage(memoryIndex(geometry), geometry);
        for (let entry = 0; entry < geometry.entries; entry += 1) {
          const at = index.entryWord(entry);
          const { offset, lengthBytes } = place(entry);
          index.putWide(at + ENTRY.offset, ring.start + offset);
          index.putWide(at + ENTRY.number, 2 ** 32 + entry);
          index.put(at + ENTRY.length, lengthBytes);
          index.put(at + ENTRY.status, STATUS.ready);
        }
        const maxRecordBytes = 64 * 1024;
        const plan =
          source === 'image'
            ? planRestore(data, ring, KEY, index, { maxRecordBytes })
            : planRestore(data, ring, KEY, undefined, { maxRecordBytes, salvaged: index });
        const fits = Array.from({ length: geometry.entries }, (_, entry) => place(entry)).filter(
          ({ offset, lengthBytes }) =>
            ring.start + offset + lengthBytes <= ring.end || lengthBytes > maxRecordBytes,
        );
        t.equal(plan.damage.length, fits.length, 'all are named');
        t.ok(fits.length > 500);
        const copied = plan.damage.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
        t.ok(copied <= 2 * (ring.end - ring.start) + 1024 * 32, `${copied} bytes are kept aside`);
        if (what !== 'larger than any record may be')
          t.ok(copied >= maxRecordBytes, 'the bytes are kept once');
      },
    );
  }
}

t.test('damaged records that do not overlap are kept aside whole', async (t) => {
  const geometry = { entries: 16, workerSlots: 1, dataBytes: 2 ** 18 };
  const index = new IndexImage(memoryIndex(geometry), geometry);
  for (let entry = 0; entry < geometry.entries; entry += 1) {
    const at = index.entryWord(entry);
    index.putWide(at + ENTRY.offset, RING_START + entry * 4 * SLOT_BYTES);
    index.putWide(at + ENTRY.number, 2 ** 32 + entry);
    index.put(at + ENTRY.length, 1000);
    index.put(at + ENTRY.status, STATUS.ready);
  }
  const ring = { start: RING_START, end: geometry.dataBytes - PAGE };
  const plan = planRestore(new MemoryData(geometry.dataBytes), ring, KEY, index, { maxRecordBytes: 4096 });
  t.same(
    plan.damage.map(({ lengthBytes }) => lengthBytes),
    Array.from({ length: geometry.entries }, () => 1000),
  );
});

t.test('a message is named although its entry claims a size that reaches over newer messages', async (t) => {
  const geometry = { entries: 4, workerSlots: 1, dataBytes: 2 ** 18 };
  const data = new MemoryData(geometry.dataBytes);
  putRecord(data, KEY, RING_START + 8 * SLOT_BYTES, 2 ** 32 + 9, smtp('newer'));
  const index = new IndexImage(memoryIndex(geometry), geometry);
  const at = index.entryWord(0);
  index.putWide(at + ENTRY.offset, RING_START);
  index.putWide(at + ENTRY.number, 2 ** 32 + 1);
  index.put(at + ENTRY.length, 2 ** 17);
  index.put(at + ENTRY.status, STATUS.ready);
  const ring = { start: RING_START, end: geometry.dataBytes - PAGE };
  t.match(planRestore(data, ring, KEY, index, { maxRecordBytes: 4096 }), {
    live: [{ number: 2 ** 32 + 9 }],
    damage: [{ number: 2 ** 32 + 1, lengthBytes: 32, what: 'record gone' }],
  });
});

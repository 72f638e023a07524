import fc from 'fast-check';
import t from 'tap';
import { RING_START } from '../record/data-file.js';
import { SLOT_BYTES } from '../record/layout.js';
import { checkLists } from './check.js';
import { KillableImage, Killed, listsOf, memoryIndex } from './fixtures/memory-image.js';
import { IndexImage } from './image.js';
import { ENTRY, ENTRY_BYTES, FIELD, type Geometry, NONE, STATUS, UNDO_CAPACITY } from './layout.js';
import { append, listedAt, release, skipHead } from './lists.js';

/**
 * Returns the problems of the lists, except a wrong ring order: these tests choose offsets without the
 * allocator.
 */
const broken = (image: IndexImage): string[] =>
  checkLists(image).filter((line) => !line.includes('around the ring'));

const geometry: Geometry = { entries: 6, workerSlots: 1, dataBytes: 2 ** 20 };

type Change = (image: IndexImage) => void;

const appendOne: Change = (image) => {
  const offset = image.getWide(FIELD.writeOffset);
  append(image, { offset, number: image.getWide(FIELD.nextNumber), sizeBytes: 300, type: 1 }, 77);
};

/** Returns the entry that is `place` steps behind the head, modulo the length of the list. */
function entryAt(image: IndexImage, place: number): number {
  let entry = image.get(FIELD.head);
  for (let step = 0; step < place % image.get(FIELD.inUse); step += 1) {
    entry = image.get(image.entryWord(entry) + ENTRY.next);
  }
  return entry;
}

const changes: Record<string, { needs: number; change: (place: number) => Change }> = {
  append: { needs: 0, change: () => appendOne },
  release: { needs: 1, change: (place) => (image) => release(image, entryAt(image, place)) },
  skipHead: { needs: 1, change: () => skipHead },
};

const steps = fc.array(
  fc.record({ what: fc.constantFrom('append', 'append', 'release', 'skipHead'), place: fc.nat(5) }),
  {
    maxLength: 14,
  },
);

/** Makes an index and applies a history of changes to it. */
function grown(history: readonly { what: string; place: number }[]): Uint8Array {
  const bytes = memoryIndex(geometry);
  const image = new IndexImage(bytes, geometry);
  for (const { what, place } of history) {
    const step = changes[what];
    if (step && image.get(FIELD.inUse) >= step.needs) step.change(place)(image);
  }
  return bytes;
}

/**
 * Runs the change on a copy of the index and kills it after `stores` stores.
 *
 * @returns undefined if it finished.
 */
function killedAfter(bytes: Uint8Array, stores: number, change: Change): Uint8Array | undefined {
  const copy = bytes.slice();
  try {
    change(new KillableImage(copy, geometry, stores));
    return undefined;
  } catch (error) {
    if (!(error instanceof Killed)) throw error;
    return copy;
  }
}

for (const [name, { needs, change }] of Object.entries(changes)) {
  t.test(
    `a lock holder killed between any two stores of ${name} leaves lists that the next owner repairs`,
    async (t) => {
      let kills = 0;
      let undone = 0;
      fc.assert(
        fc.property(steps, fc.nat(5), (history, place) => {
          const bytes = grown(history);
          const before = new IndexImage(bytes.slice(), geometry);
          if (before.get(FIELD.inUse) < needs || (name === 'append' && before.get(FIELD.free) === NONE))
            return;
          const after = new IndexImage(bytes.slice(), geometry);
          change(place)(after);
          for (let stores = 0; ; stores += 1) {
            const left = killedAfter(bytes, stores, change(place));
            if (!left) break;
            kills += 1;
            if (broken(new IndexImage(left, geometry)).length > 0) undone += 1;
            // Kill the repairing process as well, between any two of its stores.
            for (let repaired = 0; ; repaired += 1) {
              const repair: Change = (image) => image.rollBack();
              const half = killedAfter(left, repaired, repair);
              const image = new IndexImage(half ?? left.slice(), geometry);
              image.rollBack();
              const problems = broken(image);
              if (problems.length > 0) throw new Error(`after ${stores} stores: ${problems.join()}`);
              const lists = JSON.stringify(listsOf(image));
              if (lists !== JSON.stringify(listsOf(before)) && lists !== JSON.stringify(listsOf(after))) {
                throw new Error(
                  `after ${stores} stores and a repair killed after ${repaired} stores: ${lists}`,
                );
              }
              if (!half) break;
            }
          }
        }),
        { numRuns: 30 },
      );
      t.ok(kills > 200, `${kills} kills`);
      t.ok(undone > 20, `${undone} of them left half-changed lists`);
    },
  );
}

t.test('a committed change is not rolled back', async (t) => {
  const bytes = memoryIndex(geometry);
  const image = new IndexImage(bytes, geometry);
  appendOne(image);
  const lists = listsOf(image);
  image.rollBack();
  t.same(listsOf(image), lists);
});

t.test('rolling back a damaged index ends at once', async (t) => {
  const image = new IndexImage(memoryIndex(geometry), geometry);
  image.words.fill(0x7fffffff, FIELD.undoCount, FIELD.undo + 2 * UNDO_CAPACITY);
  const lists = listsOf(image);
  image.rollBack();
  t.equal(image.get(FIELD.undoCount), 0);
  t.same(listsOf(image), lists);
});

t.test('append fills the entry, and returns NONE when no entry is free [0034]', async (t) => {
  const image = new IndexImage(memoryIndex(geometry), geometry);
  const listed = { offset: 2 ** 33, number: 5 * 2 ** 32 + 9, sizeBytes: 300, type: 2 };
  const entry = append(image, listed, 0x12345);
  t.same(listedAt(image, entry), listed, 'offsets and numbers wider than 32 bits are stored');
  const at = image.entryWord(entry);
  t.equal(image.get(at + ENTRY.status), STATUS.reserved);
  t.equal(image.get(at + ENTRY.lock), 0x12345);
  t.equal(image.getWide(FIELD.nextNumber), listed.number + 1);
  t.equal(image.getWide(FIELD.writeOffset), listed.offset + 2 * SLOT_BYTES);
  for (let more = 1; more < geometry.entries; more += 1) appendOne(image);
  t.equal(append(image, listed, 1), NONE);
  t.same(broken(image), []);
});

t.test('a free entry cannot be released, and the head of an empty list cannot be skipped', async (t) => {
  const image = new IndexImage(memoryIndex(geometry), geometry);
  t.throws(() => release(image, 0), { code: 'assertion' });
  t.throws(() => skipHead(image), { code: 'assertion' });
  t.throws(() => image.entryWord(geometry.entries), { code: 'assertion' });
});

t.test('the entry size divides a disk block, so that no entry straddles two blocks [0020]', async (t) => {
  const image = new IndexImage(memoryIndex(geometry), geometry);
  t.equal(4096 % ENTRY_BYTES, 0);
  t.equal((image.entryWord(0) * 4) % 4096, 0);
});

t.test('checkLists names every problem and is safe for any content', async (t) => {
  const plant = (spoil: (image: IndexImage) => void): string[] => {
    const image = new IndexImage(
      grown(Array.from({ length: 4 }, () => ({ what: 'append', place: 0 }))),
      geometry,
    );
    t.same(checkLists(image), []);
    spoil(image);
    return checkLists(image);
  };
  const word = (image: IndexImage, entry: number, field: number) => image.entryWord(entry) + field;
  const cases: [string, RegExp, (image: IndexImage) => void][] = [
    ['a loop', /leads from 3 to 0, which it has passed/, (i) => i.put(word(i, 3, ENTRY.next), 0)],
    [
      'a link to an entry that does not exist',
      /leads from 1 to 999, no entry/,
      (i) => i.put(word(i, 1, ENTRY.next), 999),
    ],
    ['a wrong back link', /entry 2: its previous/, (i) => i.put(word(i, 2, ENTRY.previous), 0)],
    ['a free entry in use', /entry 1 is in use and marked free/, (i) => i.put(word(i, 1, ENTRY.status), 0)],
    [
      'a used entry on the free list',
      /entry 5 is free and not marked/,
      (i) => i.put(word(i, 5, ENTRY.status), 2),
    ],
    ['an entry on no list', /entry 5 is on no list/, (i) => i.put(word(i, 4, ENTRY.next), NONE)],
    ['a loop in the free list', /free list leads from 5 to 4/, (i) => i.put(word(i, 5, ENTRY.next), 4)],
    ['a wrong tail', /the tail is 1/, (i) => i.put(FIELD.tail, 1)],
    ['a wrong count', /its count says 9/, (i) => i.put(FIELD.inUse, 9)],
    ['a wrong number of used bytes', /the count says 1$/, (i) => i.putWide(FIELD.usedBytes, 1)],
    [
      'a wrong ring order',
      /a second time around/,
      (i) => {
        i.putWide(word(i, 1, ENTRY.offset), RING_START);
        i.putWide(word(i, 3, ENTRY.offset), RING_START);
      },
    ],
  ];
  for (const [name, expected, spoil] of cases) t.match(plant(spoil).join('\n'), expected, name);
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 4096, maxLength: 20_000 }), (noise) => {
      const bytes = memoryIndex(geometry);
      bytes.set(noise.subarray(0, bytes.length - 4096), 4096);
      return Array.isArray(checkLists(new IndexImage(bytes, geometry)));
    }),
  );
});

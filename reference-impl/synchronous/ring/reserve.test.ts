import fc from 'fast-check';
import t from 'tap';
import { checkLists } from '../index/check.js';
import { memoryIndex } from '../index/fixtures/memory-image.js';
import { IndexImage } from '../index/image.js';
import { ENTRY, FIELD, NONE } from '../index/layout.js';
import { append, release } from '../index/lists.js';
import { RING_START } from '../record/data-file.js';
import { SLOT_BYTES } from '../record/layout.js';
import { findFit, findSpace, type Ring } from './reserve.js';

const SLOTS = 24;
const ENTRIES = 32;
const ring: Ring = { start: RING_START, end: RING_START + SLOTS * SLOT_BYTES };

/**
 * The allocator under test and a model of it: an array of slots, each of which is free or taken by an entry.
 */
class World {
  readonly image: IndexImage;
  readonly slots: number[] = Array.from({ length: SLOTS }, () => NONE);
  readonly live: { entry: number; offset: number; extent: number }[] = [];

  constructor() {
    const geometry = { entries: ENTRIES, workerSlots: 1, dataBytes: ring.end + 4096 };
    this.image = new IndexImage(memoryIndex(geometry), geometry);
  }

  /** The longest run of free slots, in bytes. */
  get room(): number {
    const runs = this.slots.map((slot) => (slot === NONE ? '.' : 'x')).join('');
    return Math.max(...runs.split('x').map((run) => run.length)) * SLOT_BYTES;
  }

  reserve(slots: number): boolean {
    const extent = slots * SLOT_BYTES;
    const offset = findSpace(this.image, ring, extent);
    if (offset === undefined) return false;
    const number = this.image.getWide(FIELD.nextNumber);
    const entry = append(this.image, { offset, number, sizeBytes: extent - 7, type: 1 }, 1);
    this.mark({ offset, extent }, NONE, entry);
    this.live.push({ entry, offset, extent });
    return true;
  }

  release(which: number): void {
    const [gone] = this.live.splice(which % this.live.length, 1);
    if (!gone) return;
    release(this.image, gone.entry);
    this.mark(gone, gone.entry, NONE);
  }

  mark({ offset, extent }: { offset: number; extent: number }, was: number, is: number): void {
    const inside = offset >= ring.start && offset + extent <= ring.end;
    if (!inside || offset % SLOT_BYTES !== 0)
      throw new Error(`${extent} bytes at ${offset} are not in the ring`);
    const first = (offset - ring.start) / SLOT_BYTES;
    for (let slot = first; slot < first + extent / SLOT_BYTES; slot += 1) {
      if (this.slots[slot] !== was)
        throw new Error(`slot ${slot} holds entry ${this.slots[slot]}, not ${was}`);
      this.slots[slot] = is;
    }
  }
}

const step = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant('reserve' as const), n: fc.integer({ min: 1, max: 9 }) }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('release' as const), n: fc.nat(99) }) },
);

t.test('space of live records is never reserved, and existing free space is always found', async (t) => {
  let refused = 0;
  let wrapped = 0;
  fc.assert(
    fc.property(fc.array(step, { minLength: 40, maxLength: 120 }), (steps) => {
      const world = new World();
      for (const { do: what, n } of steps) {
        if (what === 'release') {
          if (world.live.length > 0) world.release(n);
        } else if (world.live.length < ENTRIES) {
          const { room } = world;
          const before = world.image.getWide(FIELD.writeOffset);
          const found = world.reserve(n);
          if (found !== n * SLOT_BYTES <= room) {
            throw new Error(
              `${n} slots ${found ? 'found' : 'refused'}, longest free run ${room / SLOT_BYTES}`,
            );
          }
          if (!found) refused += 1;
          else if (world.image.getWide(FIELD.writeOffset) < before) wrapped += 1;
        }
        const problems = checkLists(world.image);
        if (problems.length > 0) throw new Error(problems.join('\n'));
      }
      while (world.live.length > 0) world.release(0);
      if (!world.reserve(SLOTS)) throw new Error('the whole of an empty ring cannot be reserved');
    }),
    { numRuns: 400 },
  );
  t.ok(refused > 100 && wrapped > 100, 'some reservations were refused, and the ring wrapped around');
});

t.test('a single old message does not stop the queue when the write position reaches it again', async (t) => {
  const world = new World();
  world.reserve(2);
  let stored = 0;
  for (let round = 0; round < 5 * SLOTS; round += 1) {
    if (!world.reserve(3)) break;
    stored += 1;
    world.release(1);
  }
  t.equal(stored, 5 * SLOTS, 'every new message was stored while the old message waited');
  t.equal(world.live.length, 1);
});

t.test('an old message is skipped by moving it from head to tail, which moves R and W [0033]', async (t) => {
  const world = new World();
  world.reserve(4);
  world.reserve(SLOTS - 4);
  world.release(1);
  world.reserve(SLOTS - 4);
  const head = world.image.get(FIELD.head);
  t.equal(findFit(world.image, ring, SLOT_BYTES), undefined, 'the ring is full');
  t.equal(
    findSpace(world.image, ring, SLOT_BYTES),
    undefined,
    'findSpace sees from the byte count that the ring is full',
  );
  t.equal(world.image.get(FIELD.head), head, 'no message was skipped for a message that cannot fit');
  world.release(1);
  world.reserve(8);
  t.not(findSpace(world.image, ring, 12 * SLOT_BYTES), undefined);
  t.same(checkLists(world.image), []);
});

t.test('the four cases of the space check [0031, 0032]', async (t) => {
  const world = new World();
  t.equal(
    findFit(world.image, ring, SLOTS * SLOT_BYTES),
    ring.start,
    'an empty ring has space for its whole size',
  );
  t.equal(
    findFit(world.image, ring, (SLOTS + 1) * SLOT_BYTES),
    undefined,
    'an empty ring has no space for more',
  );
  world.reserve(10);
  world.reserve(4);
  t.equal(
    findFit(world.image, ring, 10 * SLOT_BYTES),
    ring.start + 14 * SLOT_BYTES,
    'with R before W the space is behind W',
  );
  world.release(0);
  t.equal(
    findFit(world.image, ring, 10 * SLOT_BYTES),
    ring.start + 14 * SLOT_BYTES,
    'the space is behind W while the message fits there',
  );
  world.reserve(8);
  t.equal(
    findFit(world.image, ring, 10 * SLOT_BYTES),
    ring.start,
    'the space is at the start when the message does not fit behind W',
  );
  world.reserve(6);
  t.equal(
    findFit(world.image, ring, 4 * SLOT_BYTES),
    ring.start + 6 * SLOT_BYTES,
    'with W before R the space ends at R',
  );
  t.equal(findFit(world.image, ring, 5 * SLOT_BYTES), undefined, 'the space does not extend beyond R');
  t.equal(world.image.get(world.image.entryWord(world.image.get(FIELD.head)) + ENTRY.previous), NONE);
});

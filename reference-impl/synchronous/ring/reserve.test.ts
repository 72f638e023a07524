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

/** The allocator under test beside a model of it: a row of slots, each free or taken by an entry. */
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

t.test('no live record is ever given out again, and room that is there is always found', async (t) => {
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
            throw new Error(`${n} slots ${found ? 'found' : 'refused'}, longest run ${room / SLOT_BYTES}`);
          }
          if (!found) refused += 1;
          else if (world.image.getWide(FIELD.writeOffset) < before) wrapped += 1;
        }
        const problems = checkLists(world.image);
        if (problems.length > 0) throw new Error(problems.join('\n'));
      }
      while (world.live.length > 0) world.release(0);
      if (!world.reserve(SLOTS)) throw new Error('an empty ring has no room for all of itself');
    }),
    { numRuns: 400 },
  );
  t.ok(refused > 100 && wrapped > 100, 'rooms were refused and the ring did wrap around');
});

t.test(
  'a single old message does not stop the queue when the write position comes round to it',
  async (t) => {
    const world = new World();
    world.reserve(2);
    let stored = 0;
    for (let round = 0; round < 5 * SLOTS; round += 1) {
      if (!world.reserve(3)) break;
      stored += 1;
      world.release(1);
    }
    t.equal(stored, 5 * SLOTS, 'everything that came was stored while the old message waited');
    t.equal(world.live.length, 1);
  },
);

t.test('an old message is skipped by moving it from head to tail, and R and W with it [0033]', async (t) => {
  const world = new World();
  world.reserve(4);
  world.reserve(SLOTS - 4);
  world.release(1);
  world.reserve(SLOTS - 4);
  const head = world.image.get(FIELD.head);
  t.equal(findFit(world.image, ring, SLOT_BYTES), undefined, 'full');
  t.equal(findSpace(world.image, ring, SLOT_BYTES), undefined, 'full, and known by the count alone');
  t.equal(world.image.get(FIELD.head), head, 'nothing was skipped for a message that cannot fit');
  world.release(1);
  world.reserve(8);
  t.not(findSpace(world.image, ring, 12 * SLOT_BYTES), undefined);
  t.same(checkLists(world.image), []);
});

t.test('the four cases of the space check [0031, 0032]', async (t) => {
  const world = new World();
  t.equal(findFit(world.image, ring, SLOTS * SLOT_BYTES), ring.start, 'empty: all of it');
  t.equal(findFit(world.image, ring, (SLOTS + 1) * SLOT_BYTES), undefined, 'empty: not more');
  world.reserve(10);
  world.reserve(4);
  t.equal(findFit(world.image, ring, 10 * SLOT_BYTES), ring.start + 14 * SLOT_BYTES, 'R before W: behind W');
  world.release(0);
  t.equal(
    findFit(world.image, ring, 10 * SLOT_BYTES),
    ring.start + 14 * SLOT_BYTES,
    'as long as there is room',
  );
  world.reserve(8);
  t.equal(findFit(world.image, ring, 10 * SLOT_BYTES), ring.start, 'then around to the start');
  world.reserve(6);
  t.equal(findFit(world.image, ring, 4 * SLOT_BYTES), ring.start + 6 * SLOT_BYTES, 'W before R: up to R');
  t.equal(findFit(world.image, ring, 5 * SLOT_BYTES), undefined, 'and not over it');
  t.equal(world.image.get(world.image.entryWord(world.image.get(FIELD.head)) + ENTRY.previous), NONE);
});

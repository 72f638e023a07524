import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import t from 'tap';
import type { Loss } from '../fault.js';
import { testRandom } from '../fixtures/fault-context.js';
import { SECTOR_BYTES } from '../sector.js';
import { type HandMadeEntry, handMadeLog } from '../write-log/fixtures/log.js';
import { WriteLog } from '../write-log/reader.js';
import { cutPower } from './crash-image.js';

const SECTORS = 16;
const dir = mkdtempSync(join(tmpdir(), 'plugpull-image-'));
t.teardown(() => rmSync(dir, { recursive: true, force: true }));

/** Returns the first byte of each sector after entries were applied to a disk, by default one of zeros. */
function replay(
  entries: readonly HandMadeEntry[],
  before: readonly number[] = new Array(SECTORS).fill(0),
): number[] {
  const disk = [...before];
  for (const { sector = 0, sectors = 0, fill = 0, flags = [] } of entries) {
    for (let n = 0; n < sectors; n++) disk[sector + n] = flags.includes('discard') ? 0 : fill;
  }
  return disk;
}

/** Cuts the power of a disk of zeros to which `entries` were applied, after `cutAt` of them. */
function cut(entries: readonly HandMadeEntry[], cutAt: number, loss: Loss, seed = 1) {
  const file = join(dir, 'log');
  const images = { stable: join(dir, 'stable'), live: join(dir, 'live') };
  writeFileSync(file, handMadeLog(entries));
  writeFileSync(images.stable, Buffer.alloc(SECTORS * SECTOR_BYTES));
  const live = Buffer.concat(replay(entries).map((fill) => Buffer.alloc(SECTOR_BYTES, fill)));
  writeFileSync(images.live, live);
  const log = new WriteLog(file);
  const result = cutPower(log, cutAt, images, loss, testRandom(seed));
  log.close();
  const stable = readFileSync(images.stable);
  const disk = Array.from({ length: SECTORS }, (_, sector) => stable[sector * SECTOR_BYTES] ?? -1);
  return { result, disk, equal: stable.equals(readFileSync(images.live)) };
}

t.test('a cut keeps the writes before the last flush, and loses the later ones', async (t) => {
  const entries: HandMadeEntry[] = [
    { sector: 0, sectors: 2, fill: 1 },
    { flags: ['flush'] },
    { sector: 1, sectors: 2, fill: 2 },
    { sector: 5, sectors: 1, fill: 3 },
    { flags: ['flush'] },
  ];
  const before = cut(entries, 4, 'all-lost');
  t.same(before.disk.slice(0, 6), [1, 1, 0, 0, 0, 0]);
  t.match(before.result, { entries: 4, flushedEntries: 1, unflushedWrites: 2, lostBytes: 1536 });
  const after = cut(entries, 5, 'all-lost');
  t.same(after.disk.slice(0, 6), [1, 2, 2, 0, 0, 3]);
  t.match(after.result, { flushedEntries: 4, unflushedWrites: 0, lostBytes: 0 });
  t.ok(before.equal && after.equal, 'the image in use equals the stable one');
});

t.test('a flush flag on a write flushes earlier writes, and FUA makes the write durable', async (t) => {
  const entries: HandMadeEntry[] = [
    { sector: 0, sectors: 1, fill: 1 },
    { sector: 1, sectors: 1, fill: 2, flags: ['flush'] },
    { sector: 2, sectors: 1, fill: 3, flags: ['fua'] },
    { sector: 3, sectors: 1, fill: 4 },
  ];
  t.same(cut(entries, 2, 'all-lost').disk.slice(0, 4), [1, 0, 0, 0]);
  t.same(cut(entries, 4, 'all-lost').disk.slice(0, 4), [1, 0, 3, 0]);
});

const anyEntry: fc.Arbitrary<HandMadeEntry> = fc
  .record({
    sector: fc.nat(SECTORS - 5),
    sectors: fc.nat(4),
    fill: fc.integer({ min: 1, max: 255 }),
    flags: fc.subarray(['flush', 'fua', 'discard'] as const),
  })
  .map((entry) => (entry.flags.includes('discard') ? { ...entry, flags: ['discard'] as const } : entry));
const anyCase = fc
  .array(anyEntry, { minLength: 1, maxLength: 25 })
  .chain((entries) => fc.tuple(fc.constant(entries), fc.nat(entries.length), fc.nat(1000)));

t.test('for any log, a cut with loss all-lost keeps exactly the flushed writes', async () => {
  fc.assert(
    fc.property(anyCase, ([entries, cutAt, seed]) => {
      const { disk, equal } = cut(entries, cutAt, 'all-lost', seed);
      const last = entries.slice(0, cutAt).findLastIndex(({ flags }) => flags?.includes('flush'));
      const kept = entries.filter(
        ({ flags }, index) => index < Math.max(0, last) || (index < cutAt && flags?.includes('fua')),
      );
      return equal && disk.join() === replay(kept).join();
    }),
    { numRuns: 150 },
  );
});

t.test(
  'with loss prefix or torn, every sector has a value that it had between the last flush and the cut',
  async () => {
    fc.assert(
      fc.property(anyCase, fc.constantFrom<Loss>('prefix', 'torn'), ([entries, cutAt, seed], loss) => {
        const { disk, equal, result } = cut(entries, cutAt, loss, seed);
        const possible = Array.from({ length: cutAt + 1 }, (_, count) => replay(entries.slice(0, count)));
        // Check each sector alone: a FUA write is kept although earlier writes are lost, so the whole disk
        // may match no prefix.
        const last = entries.slice(0, cutAt).findLastIndex(({ flags }) => flags?.includes('flush'));
        const flushed = Math.max(0, last);
        return (
          equal &&
          result.keptWrites <= result.unflushedWrites &&
          disk.every((fill, sector) => possible.slice(flushed).some((state) => state[sector] === fill))
        );
      }),
      { numRuns: 150 },
    );
  },
);

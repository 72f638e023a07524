import {
  closeSync,
  mkdtempSync,
  openSync,
  readSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { DataMap } from '../../common/platform/data-map.js';
import { QueueError } from '../../common/platform/errors.js';
import { linux, mapLibrary } from '../../common/platform/linux.js';
import { mapShared, syncMapped } from '../../common/platform/map.js';
import { scan } from '../restore/scan.js';
import { decodeDataFileHeader, encodeDataFileHeader, newDataFileHeader, RING_START } from './data-file.js';
import { putRecord, smtp } from './fixtures/memory-data.js';
import { bodyOf, readSlot } from './record.js';

const GIB = 2 ** 30;
const MAX_RECORD = 2 ** 20;

/** Makes a sparse file, in which only written parts use disk space. */
function sparse(t: { teardown(clean: () => void): void }, sizeBytes: number): { path: string; fd: number } {
  const directory = mkdtempSync(join(tmpdir(), 'plugpull-map-'));
  const path = join(directory, 'data');
  writeFileSync(path, '');
  truncateSync(path, sizeBytes);
  const fd = openSync(path, 'r+');
  t.teardown(() => {
    closeSync(fd);
    rmSync(directory, { recursive: true });
  });
  return { path, fd };
}

t.test('records beyond 4 GB of a data file are written, synced, read and found [0023]', async (t) => {
  const sizeBytes = 5 * GIB;
  const { path, fd } = sparse(t, sizeBytes);
  const head = newDataFileHeader(sizeBytes, MAX_RECORD, linux);
  const data = new DataMap(fd, sizeBytes, MAX_RECORD);
  const big = Buffer.alloc(700_000, 'z');
  const places = [RING_START, GIB - 512, 2 * GIB, 2 ** 32 - 256, 2 ** 32 + 2 ** 20, sizeBytes - 4096 - 256];
  places.forEach((offset, n) => {
    const body = smtp(offset === GIB - 512 || offset === 2 ** 32 - 256 ? big : `at ${offset}`);
    const length = putRecord(data, head.key, offset, 2 ** 32 + n, body);
    t.equal(data.sync(offset, length), 0);
  });
  const other = new DataMap(fd, sizeBytes, MAX_RECORD);
  for (const offset of places) {
    const found = readSlot(other, head.key, offset);
    t.equal(found.state, 'valid', `another map of the file reads the record at ${offset}`);
    if (found.state === 'valid') t.ok(bodyOf(other, found.header).length > 0);
  }
  const bytes = Buffer.alloc(4);
  readSync(fd, bytes, 0, 4, 2 ** 32 - 256);
  t.same([...bytes], [252, 88, 132, 133], 'the file holds the record at this offset');
  t.ok(statSync(path).blocks * 512 < 64 * 2 ** 20, 'the rest of the file is still sparse');
  for (const [from, expected] of [
    [GIB - 4096, [GIB - 512]],
    [2 ** 32 - 4096, [2 ** 32 - 256, 2 ** 32 + 2 ** 20]],
    [sizeBytes - 8192, [sizeBytes - 4096 - 256]],
  ] as const) {
    const ring = { start: from, end: Math.min(from + 4 * 2 ** 20, sizeBytes - 4096) };
    t.same(
      scan(other, ring, head.key).valid.map(({ offset }) => offset),
      expected,
    );
  }
  t.equal(data.sync(GIB - 4096, 2 * GIB), 0, 'a range that spans several windows is synced');
  data.redirty(2 ** 32 - 300, 600);
  t.equal(readSlot(data, head.key, 2 ** 32 - 256).state, 'valid', 'marking pages dirty changes no byte');
});

t.test('the bounds of the map are checked before every access [0047]', async (t) => {
  const { fd } = sparse(t, 2 ** 20);
  const data = new DataMap(fd, 2 ** 20, 65_536);
  for (const [offset, length] of [
    [2 ** 20, 1],
    [-1, 1],
    [0, 2 ** 20 + 1],
    [2 ** 20 - 10, 11],
    [0, -1],
  ] as const) {
    t.throws(() => data.locate(offset, length), { code: 'assertion', exitCode: 4 });
  }
  t.throws(() => data.sync(2 ** 20 - 10, 100), { code: 'assertion' });
  t.throws(
    () => mapShared(linux, fd, 100, 4096),
    { code: 'assertion' },
    'an offset that is not on a page boundary is refused',
  );
  t.throws(() => mapShared(linux, fd, 0, 0), { code: 'assertion' });
  t.throws(() => mapShared(linux, 999, 0, 4096), { code: 'unsupported' });
  t.match(mapLibrary, /^(mmap-io|koffi)$/);
});

t.test('a failed msync returns its errno', async (t) => {
  const { fd } = sparse(t, 8192);
  t.equal(syncMapped(linux, mapShared(linux, fd, 0, 8192), 100, 10), 0);
  const notMapped = Buffer.alloc(3 * 4096);
  t.not(syncMapped(linux, notMapped, 0, 4096), 0, 'memory that is not mapped from a file gives an errno');
});

t.test('a data file header is decoded as it was encoded, and any flipped bit is detected', async (t) => {
  const head = newDataFileHeader(5 * GIB, MAX_RECORD, linux);
  const page = encodeDataFileHeader(head);
  t.same(decodeDataFileHeader(page, 'data'), head);
  for (let bit = 0; bit < 60 * 8; bit += 1) {
    const spoilt = Buffer.from(page);
    spoilt.writeUInt8(spoilt.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
    t.throws(() => decodeDataFileHeader(spoilt, 'data'), QueueError);
  }
});

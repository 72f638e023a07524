import t from 'tap';
import type { FailedSyncEvent, FileTrace, SyncEvent, WriteEvent } from './file-trace.js';
import { type TraceSinceSnapshot, unsyncedSectors } from './unsynced.js';

const sync = (start: number, end: number, entry: number, doneOffset = entry * 10): SyncEvent => ({
  kind: 'sync',
  start,
  end,
  entry,
  doneOffset,
});
const write = (start: WriteEvent['start'], length: number, entry: number): WriteEvent => ({
  kind: 'write',
  start,
  length,
  entry,
  doneOffset: entry * 10,
});
const witness = (events: FileTrace['events'], mapped = false, snapshotOffset = 0): TraceSinceSnapshot => ({
  trace: { events, mapped },
  snapshotOffset,
});
const WHOLE = Number.POSITIVE_INFINITY;

t.test('a sector that no sync has covered may be lost', async (t) => {
  t.same(unsyncedSectors([0, 1, 7], [], 8192), [0, 1, 7]);
  t.same(unsyncedSectors([0, 1, 7], [witness([sync(0, 1024, 5)], true)], 8192), [7]);
});

t.test('a sync that covers a part of a sector makes the whole sector safe', async (t) => {
  t.same(unsyncedSectors([0, 1, 2], [witness([sync(1000, 1030, 5)], true)], 8192), [0]);
});

t.test('a sync that returned before the snapshot does not make later changes safe', async (t) => {
  t.same(unsyncedSectors([3], [witness([sync(0, WHOLE, 5)], true, 100)], 8192), [3]);
  t.same(unsyncedSectors([3], [witness([sync(0, WHOLE, 5, 101)], true, 100)], 8192), []);
});

t.test('in a mapped file a sync makes its range safe: the time of a change is unknown', async (t) => {
  t.same(unsyncedSectors([3], [witness([sync(0, WHOLE, 5), write(1536, 512, 9)], true)], 8192), []);
});

t.test('a sector that was written only after the last sync had begun may be lost', async (t) => {
  t.same(unsyncedSectors([3], [witness([sync(0, WHOLE, 5), write(1536, 512, 9)])], 8192), [3]);
  t.same(unsyncedSectors([3], [witness([write(1536, 512, 4), sync(0, WHOLE, 5)])], 8192), []);
});

t.test(
  'a sector that was written before and after a sync is safe, because its synced bytes are unknown',
  async (t) => {
    const events = [write(1536, 100, 4), sync(0, WHOLE, 5), write(1700, 100, 9)];
    t.same(unsyncedSectors([3], [witness(events)], 8192), []);
  },
);

t.test('appends follow each other from the file size at the snapshot on', async (t) => {
  const events = [write('append', 512, 4), sync(0, WHOLE, 5), write('append', 512, 9)];
  t.same(unsyncedSectors([2, 3], [witness(events)], 1024), [3]);
});

t.test(
  'if the offset of a write is unknown or two services write, a sync makes its whole range safe',
  async (t) => {
    const unknown = [sync(0, WHOLE, 5), write('unknown', 512, 9), write(1536, 512, 10)];
    t.same(unsyncedSectors([3], [witness(unknown)], 8192), []);
    const two = [witness([sync(0, WHOLE, 5)]), witness([write(1536, 512, 9)])];
    t.same(unsyncedSectors([3], two, 8192), []);
  },
);

t.test(
  'the order stays known after a truncate to the same or a larger size, and not to a smaller one',
  async (t) => {
    const cut = (length: number) => [
      write('truncate', length, 3),
      sync(0, WHOLE, 5),
      write('append', 512, 9),
    ];
    t.same(unsyncedSectors([2], [witness(cut(1024))], 1024), [2]);
    t.same(unsyncedSectors([2, 4], [witness(cut(2048))], 1024), [4], 'the zeros were synced');
    t.same(unsyncedSectors([1, 2], [witness(cut(512))], 1024), []);
  },
);

t.test('a covered change that no traced write explains is safe', async (t) => {
  t.same(unsyncedSectors([3, 4], [witness([sync(0, WHOLE, 5), write(1536, 512, 9)])], 8192), [3]);
});

const failed = (entry: number): FailedSyncEvent => ({
  kind: 'failed-sync',
  start: 0,
  end: WHOLE,
  entry,
  doneOffset: entry * 10,
});

t.test('a write before a failed sync may be lost although a later sync succeeds', async (t) => {
  const lost = (...events: FileTrace['events']) => unsyncedSectors([0], [witness(events)], 8192);
  t.same(lost(write(0, 512, 1), failed(2), sync(0, WHOLE, 3)), [0], 'the kernel treated the page as clean');
  t.same(lost(write(0, 512, 1), failed(2), write(0, 512, 3), sync(0, WHOLE, 4)), [], 'it was written again');
  t.same(lost(write(0, 512, 1), sync(0, WHOLE, 2), failed(3), sync(0, WHOLE, 4)), [], 'it was safe before');
});

t.test(
  'a sector with the end of a synced record is safe, although the sync of the next record failed',
  async (t) => {
    const events = [write('append', 700, 1), sync(0, WHOLE, 2), write('append', 700, 3), failed(4)];
    t.same(unsyncedSectors([0, 1, 2], [witness(events)], 0), [2]);
    t.same(unsyncedSectors([0, 1, 2], [witness([...events, sync(0, WHOLE, 5)])], 0), [2]);
  },
);

t.test(
  'in a mapped file a sector is safe after a failed sync, because the page may have been written again',
  async (t) => {
    const events = [write(0, 512, 1), failed(2), sync(0, WHOLE, 3)];
    t.same(unsyncedSectors([0], [witness(events, true)], 8192), []);
  },
);

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import type { DataMap } from '../../common/platform/data-map.js';
import { linux } from '../../common/platform/linux.js';
import { LockFile } from '../../common/platform/locks.js';
import { memoryIndex } from '../index/fixtures/memory-image.js';
import { IndexImage } from '../index/image.js';
import { FIELD } from '../index/layout.js';
import { LOCK } from '../index/lock-bytes.js';
import { DirectSync, type SyncPort } from './client.js';

const GEOMETRY = { entries: 4, workerSlots: 1, dataBytes: 64 * 1024 };

/** Opens the lock file of a queue twice, as two processes do. */
function twoLockFiles(t: { teardown(clean: () => void): void }): { locks: LockFile; other: LockFile } {
  const directory = mkdtempSync(join(tmpdir(), 'plugpull-direct-sync-'));
  const locks = new LockFile(join(directory, 'queue.lock'));
  const other = new LockFile(join(directory, 'queue.lock'));
  t.teardown(() => {
    for (const file of [locks, other]) file.close();
    rmSync(directory, { recursive: true, force: true });
  });
  return { locks, other };
}

t.test('a direct sync takes the place of the helper and repairs the sync of a dead process', async (t) => {
  const { locks, other } = twoLockFiles(t);
  const image = new IndexImage(memoryIndex(GEOMETRY), GEOMETRY);
  const calls: string[] = [];
  let errno = 0;
  const data = {
    sync: () => {
      calls.push(`sync, syncing ${image.get(FIELD.syncing)}, locked ${other.isHeldElsewhere(LOCK.dataSync)}`);
      return errno;
    },
  } as unknown as DataMap;
  const sync = new DirectSync({
    kernel: linux,
    data,
    image,
    locks,
    redirtyUnconfirmed: () => calls.push('redirty'),
  });
  const range = [{ offset: 0, length: 256 }];
  t.same(await sync.sync(range), { state: 'synced' });
  t.same(calls.splice(0), ['sync, syncing 1, locked true']);
  image.put(FIELD.syncing, 1);
  t.same(await sync.sync(range), { state: 'synced' });
  t.same(calls.splice(0), ['redirty', 'sync, syncing 1, locked true']);
  errno = 5;
  t.same(await sync.sync(range), { state: 'failed', errno: 5 });
  t.same(calls.splice(0), ['sync, syncing 1, locked true', 'redirty']);
  t.equal(image.get(FIELD.syncing), 0);
  t.notOk(other.isHeldElsewhere(LOCK.dataSync));
});

t.test('a direct sync waits for another process without blocking the thread, and gives up', async (t) => {
  const { locks, other } = twoLockFiles(t);
  const image = new IndexImage(memoryIndex(GEOMETRY), GEOMETRY);
  const data = { sync: () => 0 } as unknown as DataMap;
  // Each reading of the clock adds a second after the first sync, so that the time-out passes at once.
  let stepMs = 0;
  let nowMs = 0;
  const kernel = { ...linux, monotonicMs: () => (nowMs += stepMs) };
  const sync = new DirectSync({ kernel, data, image, locks, redirtyUnconfirmed: () => undefined });
  const range = [{ offset: 0, length: 256 }];
  locks.lockWithin = () => t.fail('a wait in the thread stops the connections of a worker');
  // A stopped process has the lock until this thread has done other work.
  t.ok(other.tryLock(LOCK.dataSync));
  setTimeout(() => other.unlock(LOCK.dataSync), 10);
  t.same(await sync.sync(range), { state: 'synced' });
  t.ok(other.tryLock(LOCK.dataSync));
  stepMs = 1000;
  t.same(await sync.sync(range), { state: 'timed-out' });
});

t.test('a direct sync leaves the data file to a helper while there is one', async (t) => {
  const { locks, other } = twoLockFiles(t);
  const image = new IndexImage(memoryIndex(GEOMETRY), GEOMETRY);
  const calls: string[] = [];
  const data = { sync: () => 0 * calls.push('direct') } as unknown as DataMap;
  const client: SyncPort = {
    sync: async () => {
      calls.push('helper');
      return { state: 'synced' };
    },
    flushAcks: () => undefined,
    close: () => calls.push('close'),
  };
  const pair = { kernel: linux, data, image, locks, redirtyUnconfirmed: () => undefined };
  const sync = new DirectSync(pair, () => client);
  const range = [{ offset: 0, length: 256 }];
  await sync.sync(range);
  // A helper has both locks. A direct sync that waited for the second one would never end.
  t.ok(other.tryLock(LOCK.dataSync));
  const waiting = sync.sync(range);
  t.ok(other.tryLock(LOCK.helper));
  t.same(await waiting, { state: 'synced' });
  for (const byte of [LOCK.helper, LOCK.dataSync]) other.unlock(byte);
  await sync.sync(range);
  sync.close();
  t.same(calls, ['direct', 'helper', 'direct', 'close']);
});

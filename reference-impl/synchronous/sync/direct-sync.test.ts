import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { memoryIndex } from '../index/fixtures/memory-image.js';
import { IndexImage } from '../index/image.js';
import { FIELD } from '../index/layout.js';
import type { DataMap } from '../platform/data-map.js';
import { LOCK, LockFile } from '../platform/locks.js';
import { DirectSync } from './client.js';

const GEOMETRY = { entries: 4, workerSlots: 1, dataBytes: 64 * 1024 };

t.test('a direct sync takes the place of the helper and repairs the sync of a dead process', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'plugpull-direct-sync-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const locks = new LockFile(join(directory, 'queue.lock'));
  const other = new LockFile(join(directory, 'queue.lock'));
  const image = new IndexImage(memoryIndex(GEOMETRY), GEOMETRY);
  const calls: string[] = [];
  let errno = 0;
  const data = {
    sync: () => {
      calls.push(`sync, syncing ${image.get(FIELD.syncing)}, locked ${other.isHeldElsewhere(LOCK.helper)}`);
      return errno;
    },
  } as unknown as DataMap;
  const sync = new DirectSync({ data, image, locks, redirtyUnconfirmed: () => calls.push('redirty') });
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
  t.notOk(other.isHeldElsewhere(LOCK.helper));
});

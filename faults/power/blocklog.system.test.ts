import { execFile } from 'node:child_process';
import {
  closeSync,
  copyFileSync,
  existsSync,
  fsyncSync,
  openSync,
  readdirSync,
  readFileSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t from 'tap';
import { testRandom } from '../fixtures/fault-context.js';
import { WriteLog } from '../write-log/reader.js';
import { applyEntry } from './crash-image.js';
import type { Filesystem } from './filesystem.js';
import { remainingResources, skipReason, withDisk } from './fixtures/disk.js';

const run = promisify(execFile);
const random = testRandom(7);

/**
 * Writes a file. If `durable`, the file and its name are on the disk when this returns; otherwise neither
 * needs to be.
 */
function write(folder: string, name: string, text: string, durable: boolean): void {
  const fd = openSync(join(folder, name), 'w');
  writeSync(fd, text);
  if (durable) fsyncSync(fd);
  closeSync(fd);
  if (!durable) return;
  const directory = openSync(folder, 'r');
  fsyncSync(directory);
  closeSync(directory);
}

const systems: Filesystem[] = [
  { type: 'ext4', mountOptions: '' },
  { type: 'ext4', mountOptions: 'commit=1,data=journal' },
  { type: 'xfs', mountOptions: '' },
];
for (const filesystem of systems) {
  const name = [filesystem.type, filesystem.mountOptions].filter(Boolean).join(' with ');
  const skip = skipReason(filesystem.type);
  t.test(`on ${name}, every cut keeps synced files and loses unsynced ones`, { skip }, async (t) => {
    await withDisk(async ({ disk, mountPoint }) => {
      const expected = new Set(readdirSync(mountPoint));
      for (let number = 0; number < 5; number++) {
        write(mountPoint, `synced-${number}`, `text ${number}`, true);
        expected.add(`synced-${number}`);
        write(mountPoint, `unsynced-${number}`, 'x', false);
        const { detail } = await disk.cut(await disk.stop(), 'all-lost', random);
        t.match(detail, /power cut after \d+ requests to the disk/);
        t.same(readdirSync(mountPoint).sort(), [...expected].sort());
        t.equal(readFileSync(join(mountPoint, `synced-${number}`), 'utf8'), `text ${number}`);
      }
    }, filesystem);
  });
}

const skip = skipReason();

t.test('a cut restores the state at its cut point, although files were synced later', { skip }, async (t) => {
  await withDisk(async ({ disk, mountPoint }) => {
    write(mountPoint, 'before', 'x', true);
    const moment = await disk.stop();
    disk.resume();
    write(mountPoint, 'after', 'x', true);
    await disk.cut(moment, 'all-lost', random);
    t.ok(existsSync(join(mountPoint, 'before')));
    t.notOk(existsSync(join(mountPoint, 'after')));
  });
});

t.test('a sync waits while the disk is stopped, and ends when the disk continues', { skip }, async (t) => {
  await withDisk(async ({ disk, mountPoint }) => {
    writeFileSync(join(mountPoint, 'file'), 'x');
    const moment = await disk.stop();
    let synced = false;
    const sync = run('sync', [join(mountPoint, 'file')]).then(() => {
      synced = true;
    });
    // Give the sync time to end, which it must not do.
    await run('sleep', ['0.1']);
    t.notOk(synced);
    t.equal(disk.stop(), moment, 'nothing was recorded');
    disk.resume();
    await sync;
    t.ok(disk.stop() > moment);
    disk.resume();
  });
});

t.test('after any loss the filesystem passes its own check', { skip }, async (t) => {
  await withDisk(async ({ disk, dir, mountPoint }) => {
    for (const loss of ['prefix', 'torn', 'all-lost', 'torn', 'prefix'] as const) {
      for (let file = 0; file < 20; file++)
        write(mountPoint, `${loss}-${file}`, 'x'.repeat(5000), file % 3 === 0);
      const syncing = run('sync', ['-f', mountPoint]);
      const moment = await disk.stop();
      disk.resume();
      await syncing;
      await disk.cut(moment, loss, random);
      copyFileSync(join(dir, 'stable.img'), join(dir, 'check.img'));
      // Code 1: e2fsck replayed the journal. Higher codes: the filesystem has errors.
      const checked = await run('e2fsck', ['-fy', join(dir, 'check.img')]).catch((error: unknown) => error);
      const code = checked instanceof Error && 'code' in checked ? checked.code : 0;
      t.ok(code === 0 || code === 1, `e2fsck ends with ${code} after ${loss}`);
    }
  });
});

t.test('with many concurrent writers the log holds the same bytes as the disk', { skip }, async (t) => {
  await withDisk(async ({ disk, dir, mountPoint }) => {
    const writers = [1, 2, 3, 4, 5, 6].map((number) =>
      run('dd', [
        'if=/dev/urandom',
        `of=${mountPoint}/file-${number}`,
        `bs=${number * 60}k`,
        'count=12',
        number % 2 === 0 ? 'oflag=direct' : 'conv=fsync',
        'status=none',
      ]),
    );
    await Promise.all(writers);
    await run('sync', ['-f', mountPoint]);
    disk.stop();
    const image = join(dir, 'replayed.img');
    copyFileSync(join(dir, 'stable.img'), image);
    const log = new WriteLog(join(dir, 'writes.log'));
    const fd = openSync(image, 'r+');
    let writes = 0;
    for (const entry of log.entries()) {
      if (entry.lengthBytes === 0) continue;
      applyEntry(log, entry, fd);
      writes++;
    }
    closeSync(fd);
    log.close();
    t.ok(writes > 20);
    await t.resolves(run('cmp', [image, join(dir, 'live.img')]), 'the two images are equal');
    disk.resume();
  });
});

t.test('remove leaves nothing of a disk, and may be called twice', { skip }, async (t) => {
  await withDisk(async (test) => {
    const { disk, dir, mountPoint, registered: left } = test;
    const pid = disk.daemonPid ?? 0;
    t.ok(
      remainingResources(test, pid).length >= 4,
      'the filesystem, the device, its loop device and its daemon',
    );
    t.equal(left.size, 5);
    write(mountPoint, 'dirty', 'x'.repeat(100_000), false);
    disk.remove();
    disk.remove();
    t.same(remainingResources(test, pid), []);
    t.notOk(existsSync(dir));
    t.equal(left.size, 0);
  });
});

t.test('a disk can be removed after its daemon was killed', { skip }, async (t) => {
  await withDisk(async (test) => {
    const { disk, mountPoint } = test;
    const pid = disk.daemonPid ?? 0;
    write(mountPoint, 'dirty', 'x'.repeat(100_000), false);
    process.kill(pid, 'SIGKILL');
    disk.remove();
    t.same(remainingResources(test, pid), []);
  });
});

t.test('a stopped disk can be removed', { skip }, async (t) => {
  await withDisk(async (test) => {
    const pid = test.disk.daemonPid ?? 0;
    test.disk.stop();
    test.disk.remove();
    t.same(remainingResources(test, pid), []);
  });
});

t.test('an error names the mount option that was refused, and no disk is left', { skip }, async (t) => {
  const mountOptions = 'journal_async_commit,data=ordered';
  const refused = withDisk(async () => {}, { type: 'ext4', mountOptions });
  await t.rejects(refused, { message: /mount .*journal_async_commit,data=ordered.*: / });
  const wrong = withDisk(async () => {}, { type: 'ext4', mountOptions: 'data=nonsense' });
  await t.rejects(wrong, { message: /^expected data=VALUE .*; got "data=nonsense"$/ });
});

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

/** Writes a file, with the file and its name on the disk when this returns, or neither. */
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
  t.test(`on ${name}, cut after cut leaves what was synced and loses what was not`, { skip }, async (t) => {
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

t.test('a cut falls back to the moment that was noted, whatever was synced since', { skip }, async (t) => {
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

t.test('while the disk is stopped a sync waits, and it ends when the disk goes on', { skip }, async (t) => {
  await withDisk(async ({ disk, mountPoint }) => {
    writeFileSync(join(mountPoint, 'file'), 'x');
    const moment = await disk.stop();
    let synced = false;
    const sync = run('sync', [join(mountPoint, 'file')]).then(() => {
      synced = true;
    });
    // Anything else that the machine does is done meanwhile.
    await run('sleep', ['0.1']);
    t.notOk(synced);
    t.equal(disk.stop(), moment, 'nothing was recorded');
    disk.resume();
    await sync;
    t.ok(disk.stop() > moment);
    disk.resume();
  });
});

t.test('with any loss a filesystem comes back that its own checker finds sound', { skip }, async (t) => {
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
      // 1: the journal was replayed; more: errors.
      const checked = await run('e2fsck', ['-fy', join(dir, 'check.img')]).catch((error: unknown) => error);
      const code = checked instanceof Error && 'code' in checked ? checked.code : 0;
      t.ok(code === 0 || code === 1, `e2fsck ends with ${code} after ${loss}`);
    }
  });
});

t.test('many writers at once: the log holds what the disk holds, byte for byte', { skip }, async (t) => {
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

t.test('nothing is left of a disk, and removing it twice is no harm', { skip }, async (t) => {
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

t.test('a disk whose daemon was killed can still be removed', { skip }, async (t) => {
  await withDisk(async (test) => {
    const { disk, mountPoint } = test;
    const pid = disk.daemonPid ?? 0;
    write(mountPoint, 'dirty', 'x'.repeat(100_000), false);
    process.kill(pid, 'SIGKILL');
    disk.remove();
    t.same(remainingResources(test, pid), []);
  });
});

t.test('a disk that is stopped can be removed', { skip }, async (t) => {
  await withDisk(async (test) => {
    const pid = test.disk.daemonPid ?? 0;
    test.disk.stop();
    test.disk.remove();
    t.same(remainingResources(test, pid), []);
  });
});

t.test('a mount option that the kernel refuses is named, and nothing is left', { skip }, async (t) => {
  const wrong = withDisk(async () => {}, { type: 'ext4', mountOptions: 'data=nonsense' });
  await t.rejects(wrong, { message: /mount .*data=nonsense.*: / });
});

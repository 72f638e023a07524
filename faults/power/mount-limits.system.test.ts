import { execFileSync, spawnSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { removeTree } from '../files/remove-tree.js';
import { blocklogAvailability } from './blocklog-availability.js';
import { dropFilesystem, makeFilesystem, mountFilesystem, mountOptionsOf } from './filesystem.js';
import { attachLoop, detachLoops } from './loop.js';
import { mountAt, unmountAt } from './syscalls.js';

const availability = blocklogAvailability();
const skip = availability.available ? false : availability.why;
const EXT4 = { type: 'ext4', mountOptions: '' } as const;
const NOBODY = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'] as const;

/** Runs a command as a user without rights; returns its output, or '' when it cannot be started. */
function asNobody(...command: string[]): string {
  const [program, ...args] = NOBODY;
  return spawnSync(program, [...args, ...command], { encoding: 'utf8' }).stdout;
}

/** Makes an image of a stranger: it has a setuid copy of `id` and a node of the device with the memory. */
function makeImage(t: { teardown(end: () => void): void }) {
  const dir = mkdtempSync(join(tmpdir(), 'plugpull-limits-test-'));
  chmodSync(dir, 0o755);
  const [image, point] = [join(dir, 'image'), join(dir, 'point')];
  t.teardown(() => {
    dropFilesystem(point);
    detachLoops(image);
    removeTree(dir);
  });
  writeFileSync(image, '');
  truncateSync(image, 16 << 20);
  makeFilesystem(EXT4, image);
  mkdirSync(point);
  execFileSync('mount', ['-o', 'loop', image, point]);
  const id = join(point, 'id');
  copyFileSync('/usr/bin/id', id);
  chmodSync(id, 0o4755);
  execFileSync('mknod', ['-m', '666', join(point, 'zero'), 'c', '1', '5']);
  const before = {
    uid: asNobody(id, '-u').trim(),
    bytes: asNobody('head', '-c', '1', join(point, 'zero')).length,
  };
  execFileSync('umount', [point]);
  return { point, image, id, zero: join(point, 'zero'), device: () => attachLoop(image), before };
}

t.test('a disk gives no user the rights of its files', { skip }, async (t) => {
  const { point, id, zero, device, before } = makeImage(t);
  t.same(before, { uid: '0', bytes: 1 }, 'a mount without limits gives root and a device to everybody');
  const loop = device();
  const look = () => ({
    uid: asNobody(id, '-u').trim(),
    bytes: asNobody('head', '-c', '1', zero).length,
    writes: spawnSync('touch', [join(point, 'new')]).status === 0,
  });
  mountFilesystem(EXT4, loop, point);
  t.same(look(), { uid: '65534', bytes: 0, writes: true });
  unmountAt(point);
  mountFilesystem(EXT4, loop, point, { noexec: true });
  t.same(look(), { uid: '', bytes: 0, writes: true });
  unmountAt(point);
  mountAt(loop, point, 'ext4', '');
  t.same(look(), { uid: '65534', bytes: 0, writes: true });
  unmountAt(point);
  mountAt(loop, point, 'ext4', '', { noexec: true, readOnly: true });
  t.same(look(), { uid: '', bytes: 0, writes: false });
});

t.test('a disk does not panic when its image says so', { skip }, async (t) => {
  const { point, device, image } = makeImage(t);
  execFileSync('tune2fs', ['-e', 'panic', image]);
  const loop = device();
  /** Returns what the mounted disk does on an error. The kernel leaves out what the image says itself. */
  const onErrors = () => {
    const line = readFileSync('/proc/self/mounts', 'utf8')
      .split('\n')
      .find((one) => one.split(' ')[1] === point);
    return line
      ?.split(' ')[3]
      ?.split(',')
      .filter((option) => option.startsWith('errors='));
  };
  for (const mountOptions of ['', 'errors=continue']) {
    const filesystem = { ...EXT4, mountOptions };
    // Without an option that takes precedence over the image, do not mount it.
    if (!/(^|,)errors=/.test(mountOptionsOf(filesystem))) throw new Error('the image would decide');
    const expected = [mountOptions === '' ? 'errors=remount-ro' : mountOptions];
    mountFilesystem(filesystem, loop, point);
    t.same(onErrors(), expected);
    unmountAt(point);
    mountAt(loop, point, 'ext4', mountOptionsOf(filesystem));
    t.same(onErrors(), expected);
    unmountAt(point);
  }
});

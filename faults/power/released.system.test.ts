import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { findProgram } from '../programs.js';
import { makeFilesystem } from './filesystem.js';
import { attachLoop, detachLoops } from './loop.js';
import { unmount } from './mounts.js';
import { mountAt, unmountAt, waitUntilReleased } from './syscalls.js';

const can =
  process.getuid?.() === 0 && ['mkfs.ext4', 'unshare'].every((name) => findProgram(name) !== undefined);

/**
 * Kernel flag of a process that is exiting (PF_EXITING). Its mounts are released before it becomes a zombie.
 */
const ENDING = 0x4;

/** Checks whether a process has exited or is exiting; it may still be a zombie. */
function isOver(pid: number | undefined): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const flags = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[6]);
    return (flags & ENDING) !== 0;
  } catch {
    return true;
  }
}

t.test(
  'a disk counts as released only when no other mount namespace holds it',
  { skip: can ? false : 'it mounts disks, which needs root, mkfs.ext4 and unshare' },
  async (t) => {
    const dir = mkdtempSync(join(tmpdir(), 'plugpull-released-'));
    const [image, mountPoint] = [join(dir, 'image'), join(dir, 'mnt')];
    t.teardown(() => {
      unmount(mountPoint);
      detachLoops(image);
      rmSync(dir, { recursive: true, force: true });
    });
    mkdirSync(mountPoint);
    writeFileSync(image, '');
    truncateSync(image, 16 << 20);
    makeFilesystem({ type: 'ext4', mountOptions: '' }, image);
    const device = attachLoop(image);
    mountAt(device, mountPoint, 'ext4', '');
    // Act like a container that is being started: it has a copy of every mount, and releases them after a
    // while.
    const holder = spawn('unshare', ['-m', 'sh', '-c', 'echo has; exec sleep 1'], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    await once(holder.stdout, 'data');
    unmountAt(mountPoint);
    t.notOk(isOver(holder.pid), 'it is unmounted here, and the other namespace still holds it');
    t.notOk(waitUntilReleased(device, 20), 'it is not released while the other namespace holds it');
    t.ok(waitUntilReleased(device, 10_000));
    t.ok(isOver(holder.pid), 'it is released after the holder has exited');
  },
);

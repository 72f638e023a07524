import { existsSync, mkdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { runTool } from './mounts.js';

const SYSTEM_CONTROL = '/sys/fs/fuse/connections';

/**
 * Lets the kernel have one read or write at a time under way on a FUSE mount.
 *
 * The storage daemon (QEMU before 10.1) answers a request that comes while it works on a write in the middle of that
 * write, and reads it into the same buffer: two writes at once, and the first one ends with bytes of the second, on
 * the device and in the log. Requests that carry no data (a flush, a read) overwrite only what has been
 * looked at already. A filesystem's log was damaged by this within a dozen cuts.
 *
 * @param ownControl a directory for the control files where the system has not mounted them.
 */
export function oneRequestAtATime(mountPoint: string, ownControl: string): void {
  const { dev } = statSync(mountPoint);
  // glibc's encoding of a device number; the kernel names a connection by the minor.
  const minor = (dev & 0xff) | ((dev >>> 12) & ~0xff);
  writeFileSync(join(controlDirectory(ownControl), `${minor}`, 'max_background'), '1');
}

function controlDirectory(own: string): string {
  if (existsSync(join(SYSTEM_CONTROL))) {
    const mounted = statSync(SYSTEM_CONTROL).dev !== statSync('/sys/fs/fuse').dev;
    if (mounted) return SYSTEM_CONTROL;
  }
  mkdirSync(own, { recursive: true });
  if (statSync(own).dev === statSync(join(own, '..')).dev)
    runTool('mount', ['-t', 'fusectl', 'plugpull', own]);
  return own;
}

import { existsSync, statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import type { Availability } from '../fault.js';
import { whyNoLoops, whyNoMounts } from '../privileges.js';
import { findProgram } from '../programs.js';
import type { Filesystem } from './filesystem.js';
import { STORAGE_DAEMON } from './storage-daemon.js';

/**
 * Approximate size of the images and the log of a round. A smaller tmpfs, such as a container's default, is
 * not used.
 */
const REQUIRED_FREE_BYTES = 2 * 2 ** 30;

const TOOLS: readonly (readonly [program: string, debianPackage: string])[] = [
  [STORAGE_DAEMON, 'qemu-system-common'],
  ['losetup', 'mount'],
  ['mount', 'mount'],
];
const MKFS_PACKAGES: Readonly<Record<Filesystem['type'], string>> = { ext4: 'e2fsprogs', xfs: 'xfsprogs' };

/**
 * Reports whether this machine can record a disk. It only looks for the tools and devices and tries nothing.
 */
export function blocklogAvailability(type: Filesystem['type'] = 'ext4'): Availability {
  const unavailable = (why: string, remedy: string): Availability => ({ available: false, why, remedy });
  if (process.platform !== 'linux') return unavailable('it needs Linux', 'run it on Linux');
  if (process.getuid?.() !== 0)
    return unavailable('it mounts filesystems, which needs root', 'run as root (sudo)');
  const tools = [...TOOLS, [`mkfs.${type}`, MKFS_PACKAGES[type]] as const];
  const missing = tools.filter(([program]) => findProgram(program) === undefined);
  if (missing.length > 0) {
    const packages = [...new Set(missing.map(([, name]) => name))];
    return unavailable(
      `${missing.map(([program]) => program).join(', ')} not installed`,
      `apt-get install ${packages.join(' ')}`,
    );
  }
  const noMounts = whyNoMounts();
  if (noMounts !== undefined) return unavailable(noMounts.why, noMounts.remedy);
  if (!existsSync('/dev/fuse'))
    return unavailable('/dev/fuse is missing', 'modprobe fuse; in a container: --device /dev/fuse');
  if (!existsSync('/dev/loop-control')) {
    return unavailable(
      '/dev/loop-control is missing',
      'modprobe loop; in a container: --device /dev/loop-control',
    );
  }
  const noLoops = whyNoLoops();
  if (noLoops !== undefined) return unavailable(noLoops.why, noLoops.remedy);
  if (recordingDirectory() === undefined) {
    return unavailable(
      `neither /dev/shm nor ${tmpdir()} has ${REQUIRED_FREE_BYTES / 2 ** 30} GiB free`,
      'free some space there, or set TMPDIR; in a container: --shm-size=4g',
    );
  }
  return { available: true };
}

/**
 * Returns the directory for the images and the log, or undefined when no directory has enough free space.
 * Memory is preferred: on a real disk every flush of the recorded disk takes several times as long.
 */
export function recordingDirectory(): string | undefined {
  return ['/dev/shm', tmpdir()].find((directory) => {
    try {
      const { bavail, bsize } = statfsSync(directory);
      return bavail * bsize >= REQUIRED_FREE_BYTES;
    } catch {
      return false;
    }
  });
}

import { closeSync, openSync, readdirSync, readFileSync } from 'node:fs';

/** Number of the capability that mount(2) needs. */
const CAP_SYS_ADMIN = 21n;
/** Flags of `docker run` that let root mount filesystems. */
const MOUNT_FLAGS = '--cap-add SYS_ADMIN --security-opt apparmor=unconfined';
/** Flags of `docker run` that let root use loop devices. */
const LOOP_FLAGS = "--device /dev/loop-control --device-cgroup-rule 'b 7:* rmw'";

/** A right that root lacks, as in a container, and how to get it. */
export interface MissingRight {
  why: string;
  remedy: string;
}

/** Returns what root of this machine or container lacks to mount filesystems; undefined when nothing is known to be missing. */
export function whyNoMounts(status = readText('/proc/self/status')): MissingRight | undefined {
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1];
  if (effective === undefined || ((BigInt(`0x${effective}`) >> CAP_SYS_ADMIN) & 1n) === 1n) return undefined;
  return {
    why: 'root may not mount filesystems here (no CAP_SYS_ADMIN)',
    remedy: `in a container: ${MOUNT_FLAGS}`,
  };
}

/**
 * Returns what root lacks to use loop devices; undefined when nothing is known to be missing. A kernel makes a device file
 * when it is needed, but not in the /dev of a container.
 */
export function whyNoLoops(mounts = readText('/proc/self/mounts'), dev = '/dev'): MissingRight | undefined {
  if (/^\S+ \/dev devtmpfs /m.test(mounts)) return undefined;
  const device = readdirSync(dev).find((name) => /^loop\d+$/.test(name));
  const remedy = `in a container: ${LOOP_FLAGS}`;
  if (device === undefined) return { why: `${dev} has no loop device`, remedy };
  try {
    closeSync(openSync(`${dev}/${device}`, 'r'));
    return undefined;
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    return code === 'EPERM' || code === 'EACCES'
      ? { why: `${dev}/${device} may not be opened`, remedy }
      : undefined;
  }
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}

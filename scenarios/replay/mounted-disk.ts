import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { KitError, messageOf } from '../../conformance/errors.js';
import { materialise, openRecording, type Recording } from '../../faults/crash-states/materialise.js';
import { regularFiles } from '../../faults/files/walk.js';
import { dropFilesystem, type Filesystem, mountFilesystem } from '../../faults/power/filesystem.js';
import { attachLoop, detachLoops } from '../../faults/power/loop.js';
import { copySparse } from '../../faults/power/sparse.js';
import { LogWritesError } from '../../faults/write-log/log-writes.js';
import { type CrashState, NOTHING_TORN } from '../../faults/write-log/state.js';
import type { Registry } from '../host/registry.js';

/** The image before a recording, and the recording, among the files of an unpacked bundle. */
export interface RecordedDisk {
  image: string;
  recording: Recording;
}

/**
 * The recorded disk of a bundle; undefined when it has none.
 * @param end so many entries of the log count; default: all.
 * @throws KitError bad-bundle when the log is foreign, of another version, or cut off.
 */
export function recordedDiskIn(dir: string, end?: number): RecordedDisk | undefined {
  const files = regularFiles(dir);
  const log = files.find((name) => name.endsWith('writes.log'));
  const image = files.find((name) => name.endsWith('.img'));
  if (log === undefined || image === undefined) return undefined;
  try {
    return { image: join(dir, image), recording: openRecording(join(dir, log), end) };
  } catch (error) {
    if (error instanceof LogWritesError) throw new KitError('bad-bundle', messageOf(error), { cause: error });
    throw error;
  }
}

/** All that was written before entry `entry` of the log is there, and nothing after it. */
export function stateBefore({ recording: { model } }: RecordedDisk, entry: number): CrashState {
  const count = model.entries.length;
  if (entry > count) {
    throw new KitError('bad-usage', `--at ${entry}: expected 0 to ${count}, the entries of the log`);
  }
  return { prefix: entry, kept: model.optional(entry), torn: NOTHING_TORN };
}

/** @throws KitError target-unavailable */
export function needRoot(): void {
  if (process.getuid?.() === 0) return;
  throw new KitError('target-unavailable', 'mounting a disk needs root: run it with sudo');
}

/**
 * Makes the disk of a state below `dir` and mounts it, until `clean`; all is registered before.
 * @returns where it is mounted.
 * @throws KitError target-unavailable where nothing can be mounted.
 */
export function mountState(
  disk: RecordedDisk,
  state: CrashState,
  filesystem: Filesystem,
  dir: string,
  registry: Registry,
): string {
  needRoot();
  const image = join(dir, 'state.img');
  const mountPoint = join(dir, 'disk');
  const loop = { kind: 'loop', path: image } as const;
  const mount = { kind: 'mount', path: mountPoint } as const;
  registry.made(loop);
  registry.made(mount);
  mkdirSync(mountPoint, { recursive: true });
  copySparse(disk.image, image);
  materialise(disk.recording, state, image);
  try {
    mountFilesystem(filesystem, attachLoop(image), mountPoint);
  } catch (error) {
    dropFilesystem(mountPoint);
    registry.gone(mount);
    detachLoops(image);
    registry.gone(loop);
    throw new KitError('target-unavailable', `the disk cannot be mounted: ${messageOf(error)}`, {
      cause: error,
    });
  }
  return mountPoint;
}

import { execFileSync } from 'node:child_process';
import { closeSync, cpSync, fsyncSync, lstatSync, mkdirSync, openSync, renameSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { KitError, messageOf } from '../../../conformance/errors.js';
import { removeTree, unmountForeign } from '../../../faults/files/remove-tree.js';
import { BlocklogDisk } from '../../../faults/power/blocklog.js';
import { recordingDirectory } from '../../../faults/power/blocklog-availability.js';
import { type Filesystem, MountError } from '../../../faults/power/filesystem.js';
import { flakeyDeviceName } from '../../../faults/power/flakey.js';
import { LocalFlakeyDisk } from '../../../faults/power/flakey-local.js';
import { limitsOf } from '../../../faults/power/mount-options.js';
import { copySparse } from '../../../faults/power/mounts.js';
import { FILESYSTEM_LIMIT_BYTES } from '../../../faults/storage/disk-full.js';
import type { Registry } from '../../host/registry.js';
import type { Disk, DiskKind } from '../disk.js';
import type { PowerBackendName } from '../power-backends.js';
import { RUN_VARIABLE } from '../runtime.js';

/** Name of the directory of the target's data on a separate disk. */
export const DATA_DIR = 'data';
/** Size of a disk whose power can be cut. Its image takes space only where something is written. */
const POWER_DISK_SIZE_BYTES = 2 * 2 ** 30;

/**
 * Makes an empty data directory in `dir`, on a separate filesystem where faults need one.
 * @throws KitError kit-failed when a disk whose power can be cut cannot be made, bad-usage when it cannot be
 * mounted with the options of `--fs`.
 */
export async function makeDisk(
  dir: string,
  kind: DiskKind,
  power: PowerBackendName,
  filesystem: Filesystem,
  registry: Registry,
): Promise<Disk> {
  if (kind === 'power' && power === 'flakey') return makeFlakeyDisk(dir, filesystem, registry);
  if (kind === 'power') return makeBlocklogDisk(dir, filesystem, registry);
  return makeDirectory(join(dir, 'data'), kind, registry);
}

function makeDirectory(dataDir: string, kind: 'any' | 'limited', registry: Registry): Disk {
  const directory = { kind: 'directory', path: dataDir } as const;
  const mount = { kind: 'mount', path: dataDir } as const;
  registry.made(directory);
  mkdirSync(dataDir, { recursive: true });
  if (kind === 'limited') {
    registry.made(mount);
    const options = [`size=${FILESYSTEM_LIMIT_BYTES}`, ...limitsOf({})].join(',');
    execFileSync('mount', ['-t', 'tmpfs', '-o', options, 'plugpull', dataDir]);
  }
  const remove = () => {
    // This unmounts the filesystem as well, and what a target may have mounted over it.
    removeTree(dataDir);
    if (kind === 'limited') registry.gone(mount);
    registry.gone(directory);
  };
  return {
    dataDir,
    power: undefined,
    remove,
    saveTo(to) {
      unmountForeign(dataDir, kind === 'limited' ? 1 : 0);
      if (kind === 'limited' || !isDirectory(dataDir)) copyTree(dataDir, to);
      else renameSync(dataDir, to);
      remove();
    },
  };
}

/** Name and size of a recorded disk. */
interface RecordedDiskPlan {
  /** Name that distinguishes the images of this disk from those of other disks of the run. */
  name: string;
  mountPoint: string;
  sizeBytes: number;
}

/**
 * Makes a disk that records every write and flush.
 * @throws KitError kit-failed when it cannot be made, bad-usage when it cannot be mounted with the options of
 * `--fs`.
 */
export async function createRecordedDisk(
  { name, mountPoint, sizeBytes }: RecordedDiskPlan,
  filesystem: Filesystem,
  registry: Registry,
): Promise<BlocklogDisk> {
  const directory = recordingDirectory();
  if (directory === undefined)
    throw new KitError('kit-failed', 'no space is left for the images of a recorded disk');
  return BlocklogDisk.create({
    dir: join(directory, `plugpull-${registry.runId}-${name}`),
    mountPoint,
    sizeBytes,
    filesystem,
    recorded: true,
    env: { [RUN_VARIABLE]: registry.runId },
    registry,
  }).catch((error: unknown) => {
    throw diskError('the recorded disk', filesystem, error);
  });
}

async function makeBlocklogDisk(dir: string, filesystem: Filesystem, registry: Registry): Promise<Disk> {
  const mountPoint = join(dir, 'disk');
  const plan = { name: basename(dir), mountPoint, sizeBytes: POWER_DISK_SIZE_BYTES };
  const disk = await createRecordedDisk(plan, filesystem, registry);
  return diskWithData(disk, mountPoint, () => disk.evidence);
}

async function makeFlakeyDisk(dir: string, filesystem: Filesystem, registry: Registry): Promise<Disk> {
  const mountPoint = join(dir, 'disk');
  const disk = await LocalFlakeyDisk.create({
    dir: join(dir, 'flakey'),
    name: flakeyDeviceName(registry.runId),
    mountPoint,
    sizeBytes: POWER_DISK_SIZE_BYTES,
    filesystem,
    registry,
  }).catch((error: unknown) => {
    throw diskError('the disk behind dm-flakey', filesystem, error);
  });
  return diskWithData(disk, mountPoint, () => []);
}

/**
 * Makes the error for a disk that failed: mount options that do not work are the user's mistake, all else is
 * the kit's.
 */
function diskError(what: string, { type, mountOptions }: Filesystem, error: unknown): KitError {
  if (!(error instanceof MountError) || mountOptions === '')
    return new KitError('kit-failed', `${what} cannot be made: ${messageOf(error)}`, { cause: error });
  const message = `--fs ${type}:${mountOptions}: expected options that ${type} can be mounted with: ${messageOf(error)}`;
  return new KitError('bad-usage', message, { cause: error });
}

/**
 * Makes the directory of the target's data on a disk whose power can be cut.
 * @param evidenceFiles returns the files that `saveTo` copies to the data's side, in their state at that
 * time.
 */
function diskWithData(
  disk: BlocklogDisk | LocalFlakeyDisk,
  mountPoint: string,
  evidenceFiles: () => readonly string[],
): Disk {
  const dataDir = join(mountPoint, DATA_DIR);
  makeDurableDirectory(dataDir);
  return {
    dataDir,
    power: disk,
    remove: () => disk.remove(),
    saveTo(to) {
      unmountForeign(mountPoint, 1);
      copyTree(dataDir, to);
      for (const file of evidenceFiles()) copySparse(file, `${to}.${basename(file)}`);
      disk.remove();
    },
  };
}

/**
 * Makes a directory and syncs its parent: otherwise it would depend on the target's own syncs whether the
 * directory's name survives a power cut.
 */
export function makeDurableDirectory(path: string): void {
  mkdirSync(path);
  const fd = openSync(dirname(path), 'r');
  fsyncSync(fd);
  closeSync(fd);
}

/**
 * Copies what a target has left. A target may have removed its directory, or put a link to other files in its
 * place, which are no evidence: the copy is empty then.
 */
function copyTree(from: string, to: string): void {
  if (!isDirectory(from)) {
    mkdirSync(to);
    return;
  }
  cpSync(from, to, { recursive: true, filter: (path) => !isPipe(path) });
}

function isDirectory(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}

function isPipe(path: string): boolean {
  const stat = lstatSync(path);
  return stat.isFIFO() || stat.isSocket();
}

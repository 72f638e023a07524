import { readdirSync } from 'node:fs';
import { join, relative } from 'node:path';
import type { Recording } from '../../../faults/crash-states/materialise.js';
import { StateDisk } from '../../../faults/crash-states/state-disk.js';
import type { Filesystem } from '../../../faults/power/filesystem.js';
import { type Extent, placedExtentsOf } from '../../../faults/power/syscalls.js';
import { NOTHING_TORN } from '../../../faults/write-log/state.js';
import { DATA_DIR } from '../../runtime/disks/local-disk.js';
import type { StateWorkspace } from './workspace.js';

/** A recorded disk whose writes are to be named. */
export interface OwnedDisk {
  recording: Recording;
  /** Path of an image of the disk on which the first `baseAt` writes and flushes of the log are done. */
  base: string;
  baseAt: number;
  filesystem: Filesystem;
}

/** Number of flushes after a write after which the filesystem surely knows to which file the write belongs. */
const FLUSHES_LATER = 3;
/** Upper bound of the files whose positions are read on one disk. */
const MAX_FILES = 20_000;

/**
 * Finds out to which file each of some writes belongs. It mounts the disk as it was a few flushes after the writes,
 * and as it was at the end, and asks the filesystem for the positions of its files.
 * @param entries numbers of log entries.
 * @returns paths by entry, below the data directory; a directory ends with `/`. A write that is not in the map belongs
 *   to the filesystem itself, or to a file that existed at neither of the two moments.
 * @throws Error when the disk cannot be made or mounted.
 */
export function ownersOf(
  { recording, base, baseAt, filesystem }: OwnedDisk,
  entries: readonly number[],
  workspace: StateWorkspace,
): Map<number, string> {
  const owners = new Map<number, string>();
  const { model } = recording;
  const writes = entries.flatMap((index) => {
    const entry = model.entries[index];
    return entry === undefined || entry.lengthBytes === 0 || entry.discard ? [] : [entry];
  });
  const last = writes.at(-1)?.index;
  if (last === undefined) return owners;
  const slot = workspace.makeSlot(`owners-${last}`, base);
  const disk = new StateDisk({
    ...{ recording, base, baseAt, filesystem, ...slot },
    // Files are only looked at.
    limits: { noexec: true, readOnly: true },
  });
  try {
    const later = model.entries.filter(({ index, flush }) => index > last && flush)[FLUSHES_LATER - 1];
    for (const prefix of new Set([later?.index ?? model.entries.length, model.entries.length])) {
      disk.mount({ prefix, kept: model.optional(prefix), torn: NOTHING_TORN });
      try {
        const extents = fileExtents(slot.mountPoint);
        for (const { index, offset, lengthBytes } of writes) {
          const path = owners.get(index) ?? extents.find((one) => overlaps(one, offset, lengthBytes))?.path;
          if (path !== undefined) owners.set(index, path);
        }
      } finally {
        disk.unmount();
      }
    }
  } finally {
    disk.close();
  }
  return owners;
}

type FileExtent = Extent & { path: string };

function overlaps({ deviceOffset, lengthBytes }: Extent, offset: number, length: number): boolean {
  return deviceOffset < offset + length && deviceOffset + lengthBytes > offset;
}

/** Returns the extents of all files and directories of a mounted disk. */
function fileExtents(mountPoint: string): FileExtent[] {
  const extents: FileExtent[] = [];
  const dataDir = join(mountPoint, DATA_DIR);
  const addExtents = (path: string, name: string) => {
    for (const extent of placedExtentsOf(path)) extents.push({ ...extent, path: name });
  };
  addExtents(mountPoint, '../');
  let files = 0;
  const visit = (folder: string) => {
    addExtents(folder, `${relative(dataDir, folder) || '.'}/`);
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      if (++files > MAX_FILES) return;
      const path = join(folder, entry.name);
      if (entry.isDirectory()) visit(path);
      else if (entry.isFile()) addExtents(path, relative(dataDir, path));
    }
  };
  visit(dataDir);
  return extents;
}

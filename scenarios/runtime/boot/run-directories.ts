import {
  chmodSync,
  chownSync,
  copyFileSync,
  type Dirent,
  lstatSync,
  mkdirSync,
  readdirSync,
  readlinkSync,
  symlinkSync,
} from 'node:fs';
import { join } from 'node:path';

/** Depth below /run to which directories are copied. */
const MAX_DEPTH = 3;
/** Upper bound of the copied entries: a directory of a daemon may have thousands. */
const MAX_ENTRIES = 500;
/** Files that programs need to find other machines. /etc/resolv.conf is often a link to one of them. */
const COPIED_FILES = /^(stub-)?resolv\.conf$/;

/**
 * Copies the directories of /run, which the packages of a machine make again at each boot, without their
 * content: no socket, lock or pid file survives a boot. Symbolic links and the configuration of the resolver
 * are copied too. Entries that cannot be read are left out.
 */
export function copyDirectoriesOf(from: string, to: string): void {
  let left = MAX_ENTRIES;
  const copy = (source: string, target: string, depth: number): void => {
    for (const entry of entriesOf(source)) {
      if (left-- <= 0) return;
      const [path, place] = [join(source, entry.name), join(target, entry.name)];
      try {
        if (entry.isSymbolicLink()) symlinkSync(readlinkSync(path), place);
        else if (entry.isDirectory()) {
          copyDirectory(path, place);
          if (depth < MAX_DEPTH) copy(path, place, depth + 1);
        } else if (entry.isFile() && COPIED_FILES.test(entry.name)) copyFileSync(path, place);
      } catch {
        // The entry has disappeared meanwhile, or it is not a file of this machine (FUSE).
      }
    }
  };
  copy(from, to, 1);
}

/** Makes a directory with the mode and the owner of another one. */
export function copyDirectory(from: string, to: string): void {
  const { mode, uid, gid } = lstatSync(from);
  mkdirSync(to);
  const ownUid = process.getuid?.();
  if (ownUid === 0) chownSync(to, uid, gid);
  // Without root, the kit could not remove a directory into which its own user may not write.
  chmodSync(to, (mode & 0o7777) | (ownUid === 0 ? 0 : 0o700));
}

function entriesOf(path: string): Dirent[] {
  try {
    return readdirSync(path, { withFileTypes: true });
  } catch {
    return [];
  }
}

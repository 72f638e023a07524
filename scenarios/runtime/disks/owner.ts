import { chownSync, closeSync, fsyncSync, openSync } from 'node:fs';

/**
 * Gives a directory to a user and syncs it: otherwise it would depend on the target's own syncs whether the
 * owner survives a power cut.
 */
export function giveTo(path: string, { uid, gid }: { uid: number; gid: number }): void {
  chownSync(path, uid, gid);
  const fd = openSync(path, 'r');
  fsyncSync(fd);
  closeSync(fd);
}

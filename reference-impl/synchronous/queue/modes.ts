import { statSync } from 'node:fs';
import { DIRECTORY_MODE } from '../../common/platform/kernel.js';
import type { QueueSettings } from '../settings/settings.js';

/** A directory of a queue that users other than its owner can use. */
export interface OpenDirectory {
  path: string;
  /** Permission bits. */
  mode: number;
}

/**
 * Finds the directories of an installed queue with a wider mode than 0700. A directory inside another one of the queue
 * does not count, because the outer one protects it. The modes are not changed here: someone may have given a backup program
 * access on purpose.
 */
export function openDirectories({ directory, pairs, deadLetter }: QueueSettings): OpenDirectory[] {
  const all = [
    directory,
    deadLetter.directory,
    ...pairs.flatMap((pair) => [pair.directory, pair.indexDirectory]),
  ];
  const outermost = [...new Set(all)].filter((path) => !all.some((other) => path.startsWith(`${other}/`)));
  return outermost.flatMap((path) => {
    const mode = (statSync(path, { throwIfNoEntry: false })?.mode ?? DIRECTORY_MODE) & 0o777;
    return (mode & ~DIRECTORY_MODE) === 0 ? [] : [{ path, mode }];
  });
}

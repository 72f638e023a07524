import { readdirSync, type Stats, statSync } from 'node:fs';
import { basename, join, normalize, relative } from 'node:path';
import { KitError, messageOf } from '../errors.js';
import type { Target } from '../target-file/definition.js';

/** A file that is part of a target. */
export interface TargetPart {
  /** Current path of the file. */
  path: string;
  /** Path of the file in the copy of the target that the evidence contains, with `/` as separator. */
  name: string;
}

const MAX_FILES = 5000;
const MAX_TOTAL_BYTES = 256 * 1024 * 1024;
/**
 * Folder name that replaces `..` in the path of a copied file, because the path must not leave the copy of
 * the target.
 */
const PARENT = '_parent';
/** Matches `{dir}/PATH` in a word of a command. */
const DIR_PATH = /\{dir\}\/([^\s'"{}:;,|&]+)/g;

/**
 * Returns the files of a target, sorted by name: its target file, the files and folders in `{dir}` that its
 * commands name, and its `sources`.
 * @throws KitError bad-target when a source does not exist, or when there are more files or bytes than a copy
 * may hold.
 */
export function targetFiles(target: Target, file: string): TargetPart[] {
  const parts = new Map<string, TargetPart>();
  let sizeBytes = 0;
  const add = (path: string) => {
    const stat = statOf(path, file);
    if (stat?.isDirectory()) for (const entry of entriesOf(path, file)) add(join(path, entry));
    if (!stat?.isFile()) return;
    const name = pathInCopy(relative(target.dir, path));
    if (parts.has(name)) return;
    parts.set(name, { path, name });
    sizeBytes += stat.size;
    if (parts.size > MAX_FILES || sizeBytes > MAX_TOTAL_BYTES)
      throw new KitError(
        'bad-target',
        `${file}: its commands name more than ${MAX_FILES} files or ${MAX_TOTAL_BYTES / 2 ** 20} MiB in {dir}; expected the target alone there`,
      );
  };
  parts.set(basename(file), { path: file, name: basename(file) });
  for (const command of commandsOf(target)) {
    for (const word of command) {
      for (const [, path] of word.matchAll(DIR_PATH)) add(join(target.dir, path ?? ''));
    }
  }
  target.sources?.forEach((source, index) => {
    const path = join(target.dir, source);
    if (statOf(path, file) === undefined)
      throw new KitError('bad-target', `${file}: sources.${index}: expected a file or folder at ${path}`);
    add(path);
  });
  return [...parts.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** Returns the commands of all services, then `install`, `verify`, `nudge` and `promote`. */
export function commandsOf({ services, install, verify, nudge, promote }: Target): (readonly string[])[] {
  const commands = Object.values(services).map(({ command }): readonly string[] => command);
  return [...commands, ...[install, verify, nudge, promote].filter((command) => command !== undefined)];
}

function statOf(path: string, file: string): Stats | undefined {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch (error) {
    throw unreadable(path, file, error);
  }
}

function entriesOf(path: string, file: string): string[] {
  try {
    return readdirSync(path).sort();
  } catch (error) {
    throw unreadable(path, file, error);
  }
}

/** Makes the error for a path that cannot be read: a symbolic link to itself, or a folder without permission. */
function unreadable(path: string, file: string, error: unknown): KitError {
  return new KitError(
    'bad-target',
    `${file}: expected to read what its commands name: ${path}: ${messageOf(error)}`,
    { cause: error },
  );
}

function pathInCopy(path: string): string {
  return normalize(path)
    .split('/')
    .map((part) => (part === '..' ? PARENT : part))
    .join('/');
}

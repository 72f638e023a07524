import { randomUUID } from 'node:crypto';
import {
  constants,
  copyFileSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join, relative } from 'node:path';
import { KitError, messageOf } from '../../../conformance/errors.js';

/** A file to write, with its absolute path. */
export interface NewFile {
  path: string;
  text: string;
}

/** How a file was found: absent, already as wanted, or something else that stands in its place. */
type Found = 'absent' | 'same' | 'other';

/**
 * Writes all files or none. A file that exists with the same content is left alone. Each file appears under its name only
 * when it is whole, so that a kill in between leaves no half-written file.
 * @param force replaces files that exist.
 * @param label the user's own text, such as `--out DIR`; it begins every error message.
 * @returns the paths that were written.
 * @throws KitError bad-usage when a file exists and `force` is false, or when a file cannot be written.
 */
export function writeAllOrNone(files: readonly NewFile[], force: boolean, label: string): string[] {
  const found = files.map((file) => whatIsAt(file, label));
  const inTheWay = files.filter((_, index) => found[index] === 'other').map(({ path }) => path);
  if (inTheWay.length > 0 && !force)
    throw new KitError(
      'bad-usage',
      `${label}: ${inTheWay.map((path) => relative('.', path)).join(', ')}: expected no file of this name, found one with another content; nothing was written. Use another --name, --out or --ci, or --force to replace it`,
    );
  const undo: (() => void)[] = [];
  try {
    const wanted = files.filter((_, index) => found[index] !== 'same');
    const staged = wanted.map((file) => stage(file, undo));
    const backups = staged.map(({ temporary, path }) => place(temporary, path, force, undo));
    for (const backup of backups) if (backup !== undefined) rmSync(backup, { force: true });
    return wanted.map(({ path }) => path);
  } catch (error) {
    for (const step of undo.reverse()) {
      try {
        step();
      } catch {
        // The error that is reported below is the cause of this one.
      }
    }
    throw new KitError('bad-usage', `${label}: ${messageOf(error)}; nothing was written`, { cause: error });
  }
}

function whatIsAt(file: NewFile, label: string): Found {
  try {
    return lookAt(file);
  } catch (error) {
    throw new KitError('bad-usage', `${label}: ${messageOf(error)}; nothing was written`, { cause: error });
  }
}

function lookAt({ path, text }: NewFile): Found {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return 'absent';
  const isSame =
    stat.isFile() && stat.size === Buffer.byteLength(text) && readFileSync(path, 'utf8') === text;
  return isSame ? 'same' : 'other';
}

/** Writes the file under a temporary name beside its own. */
function stage({ path, text }: NewFile, undo: (() => void)[]): { temporary: string; path: string } {
  makeFolders(dirname(path), undo);
  const temporary = join(dirname(path), `.${basename(path)}.${randomUUID()}`);
  undo.push(() => rmSync(temporary, { force: true }));
  writeFileSync(temporary, text, { flag: 'wx' });
  return { temporary, path };
}

/** Makes a folder and its parents; those that were made are removed again by `undo`. */
function makeFolders(folder: string, undo: (() => void)[]): void {
  if (lstatSync(folder, { throwIfNoEntry: false }) !== undefined) return;
  makeFolders(dirname(folder), undo);
  mkdirSync(folder);
  undo.push(() => rmdirSync(folder));
}

/**
 * Gives a staged file its name.
 * @returns the path of the file that was replaced, under a temporary name.
 */
function place(temporary: string, path: string, force: boolean, undo: (() => void)[]): string | undefined {
  const backup =
    force && lstatSync(path, { throwIfNoEntry: false })?.isFile() ? `${temporary}.old` : undefined;
  if (backup !== undefined) {
    renameSync(path, backup);
    undo.push(() => renameSync(backup, path));
    renameSync(temporary, path);
    return backup;
  }
  linkOrCopy(temporary, path);
  undo.push(() => rmSync(path, { force: true }));
  rmSync(temporary);
  return undefined;
}

/** Gives a file a second name, and fails if that name exists: another `init` may have made it in the meantime. */
function linkOrCopy(from: string, to: string): void {
  try {
    linkSync(from, to);
  } catch (error) {
    if (lstatSync(to, { throwIfNoEntry: false }) !== undefined) throw error;
    // Some filesystems have no hard links.
    copyFileSync(from, to, constants.COPYFILE_EXCL);
  }
}

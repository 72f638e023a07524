import { closeSync, lstatSync, mkdirSync, openSync, readdirSync, rmSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf } from '../../conformance/errors.js';
import { userStateDirectories } from './user-state.js';

/*
 * The list of bundles that this user made on this machine: one file per bundle, whose name is the SHA-256 of the bundle.
 * `replay` runs the commands of these bundles without `--trust`. The list is in the user state directory and not in the
 * state directory `.plugpull`, which a checkout of a stranger may contain. A program that runs with the rights of the user
 * can write to the list, but such a program can run commands without the list, too.
 */

/** Upper bound of the files in the list. The oldest go first; their bundles then need --trust. */
const MAX_NOTED_BUNDLES = 2000;
const SHA256 = /^[0-9a-f]{64}$/;
/** Permission of the group or of others to write. */
const WRITABLE_BY_OTHERS = 0o022;

/** Returns the user state directory whose folder `bundles` is the list. */
export function userStateDirectory(): string {
  return userStateDirectories()[0];
}

function listDirectory(): string {
  return join(userStateDirectory(), 'bundles');
}

/**
 * Makes the directory of the list, so that a target cannot make it.
 * @throws Error of the system call that failed.
 */
export function makeMadeHereList(): void {
  mkdirSync(listDirectory(), { recursive: true, mode: 0o700 });
}

/**
 * Notes that this user made a bundle on this machine.
 * @throws Error when the list cannot be written, or when others can write to it.
 */
export function noteMadeHere(sha256: string, file: string): void {
  makeMadeHereList();
  const problem = listProblem();
  if (problem !== undefined) throw new Error(problem);
  removeOldest();
  const path = join(listDirectory(), sha256);
  if (lstatSync(path, { throwIfNoEntry: false })?.isFile()) return;
  const fd = openSync(path, 'wx', 0o600);
  try {
    writeSync(fd, `${new Date().toISOString()} ${JSON.stringify(file)}\n`);
  } finally {
    closeSync(fd);
  }
}

/**
 * Returns the reason why a bundle does not count as made on this machine by this user; undefined when it does.
 * @param sha256 digest of the whole bundle.
 */
export function whyNotMadeHere(sha256: string): string | undefined {
  const entry = SHA256.test(sha256)
    ? lstatSync(join(listDirectory(), sha256), { throwIfNoEntry: false })
    : undefined;
  if (entry === undefined) return 'it was not made on this machine by this user';
  const isOwn = entry.isFile() && entry.uid === process.geteuid?.();
  return isOwn ? listProblem() : `${join(listDirectory(), sha256)} is not a file of this user`;
}

/** Returns why the list cannot be believed; undefined when only this user can write to it. */
function listProblem(): string | undefined {
  for (const path of [userStateDirectory(), listDirectory()]) {
    try {
      const { uid, mode } = statSync(path);
      if (uid !== process.geteuid?.()) return `${path} belongs to another user`;
      if ((mode & WRITABLE_BY_OTHERS) !== 0)
        return `${path} can be written to by others (chmod go-w ${path})`;
    } catch (error) {
      return `${path} cannot be read: ${messageOf(error)}`;
    }
  }
  return undefined;
}

function removeOldest(): void {
  const names = readdirSync(listDirectory()).filter((name) => SHA256.test(name));
  if (names.length < MAX_NOTED_BUNDLES) return;
  const byAge = names
    .map((name) => join(listDirectory(), name))
    .map((path) => ({ path, ms: lstatSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0 }))
    .sort((a, b) => a.ms - b.ms);
  for (const { path } of byAge.slice(0, names.length - MAX_NOTED_BUNDLES + 1)) rmSync(path, { force: true });
}

// Lets one set-up at a time work in a folder.
import { linkSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { seconds } from './progress.mjs';

/** Longest time for which a set-up waits for another one. */
const MAX_WAIT_MS = 600_000;

/** The folder of a lock cannot be written, for example because another user owns it. */
export class UnwritableFolder extends Error {}

/**
 * Takes a lock. A lock whose set-up is gone, and with it the programs that it had started, is taken over.
 * @param {string} path the lock.
 * @param {import('./progress.mjs').Progress} progress
 * @returns {Promise<{ note(pids: number[]): void, release(): void }>} `note` says which programs belong to the lock.
 * @throws UnwritableFolder when this user cannot write there, and Error when another set-up holds it for ten minutes.
 */
export async function takeLock(path, progress) {
  try {
    mkdirSync(dirname(path), { recursive: true });
    rmSync(writeOwn(path, []));
  } catch (error) {
    throw new UnwritableFolder(`${dirname(path)} cannot be written (${error.code})`);
  }
  if (!tryTake(path)) {
    const state = (elapsedMs) => `waiting for another set-up of this folder: ${seconds(elapsedMs)}`;
    await progress.during('another set-up of this folder runs; waiting for its end', state, async () => {
      const deadlineMs = Date.now() + MAX_WAIT_MS;
      while (!tryTake(path)) {
        if (Date.now() > deadlineMs)
          throw new Error(`another set-up holds ${path} for ten minutes: remove it if none runs`);
        await sleep(200);
      }
    });
  }
  return {
    note: (pids) => renameSync(writeOwn(path, [process.pid, ...pids]), path),
    release: () => rmSync(path, { force: true }),
  };
}

/** Writes the holders of a lock to a file of this process. Only a complete file gets the name of the lock. */
function writeOwn(path, pids) {
  const own = `${path}.${process.pid}`;
  writeFileSync(own, JSON.stringify(pids.map(identityOf)));
  return own;
}

/** Takes the lock if nobody has it, or if its holder is gone. */
function tryTake(path) {
  const own = writeOwn(path, [process.pid]);
  try {
    if (linkOnce(own, path)) return true;
    if (readLock(path).some(isAlive)) return false;
    const old = `${own}.old`;
    try {
      renameSync(path, old);
    } catch {
      return false;
    }
    // Another set-up may have taken the lock after it was read: give the lock back to it.
    if (readLock(old).some(isAlive)) linkOnce(old, path);
    rmSync(old, { force: true });
    return linkOnce(own, path);
  } finally {
    rmSync(own, { force: true });
  }
}

/** Gives a file a second name, unless something has this name. */
function linkOnce(from, to) {
  try {
    linkSync(from, to);
    return true;
  } catch (error) {
    if (error.code === 'EEXIST') return false;
    throw error;
  }
}

function readLock(path) {
  try {
    const found = JSON.parse(readFileSync(path, 'utf8'));
    return Array.isArray(found) ? found : [];
  } catch {
    return [];
  }
}

/** A process id and the time of its start, which tells it from a later process with the same id. */
function identityOf(pid) {
  return { pid, start: startOf(pid) ?? null };
}

function isAlive({ pid, start } = {}) {
  if (!Number.isInteger(pid) || pid <= 0) return false;
  const found = startOf(pid);
  if (found !== undefined) return start === null || found === start;
  try {
    process.kill(pid, 0);
    return start === null;
  } catch (error) {
    return error.code === 'EPERM';
  }
}

/** Returns the start time of a living process in clock ticks since the boot; undefined for others and for zombies. */
function startOf(pid) {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
    return 'ZX'.includes(fields[0] ?? 'X') ? undefined : fields[19];
  } catch {
    return undefined;
  }
}

import { type ExecFileSyncOptionsWithStringEncoding, execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { sleepSync } from '../waiting.js';

/** A command that hangs holds up the run; nothing here takes more than a fraction of a second. */
const TIMEOUT_MS = 20_000;

const EXEC_OPTIONS: ExecFileSyncOptionsWithStringEncoding & { detached: boolean } = {
  stdio: ['ignore', 'pipe', 'pipe'],
  encoding: 'utf8',
  timeout: TIMEOUT_MS,
  env: { ...process.env, LC_ALL: 'C' },
  // Not in the kit's process group: a Ctrl-C is the kit's to handle, and would end a tool between two of its steps.
  detached: true,
};

/** What tools say when the filesystem on which they write refuses, and the code that a call of our own would have got. */
const ERRNO_MESSAGES = [
  [/No space left on device/, 'ENOSPC'],
  [/Disk quota exceeded/, 'EDQUOT'],
  [/Read-only file system/, 'EROFS'],
] as const;

/** Runs a system tool and returns what it prints; throws with its own words when it fails, and with a `code` for no room. */
export function runTool(program: string, args: readonly string[]): string {
  try {
    return execFileSync(program, args, EXEC_OPTIONS);
  } catch (error) {
    const stderr = error instanceof Error && 'stderr' in error ? String(error.stderr).trim() : '';
    const what = `${program} ${args.join(' ')}: ${stderr === '' ? String(error) : stderr}`;
    const code = ERRNO_MESSAGES.find(([pattern]) => pattern.test(stderr))?.[1];
    throw Object.assign(new Error(what, { cause: error }), code && { code });
  }
}

/** Every path where something is mounted. */
export function mountPoints(): Set<string> {
  const lines = readFileSync('/proc/self/mounts', 'utf8').split('\n');
  return new Set(
    lines.map((line) =>
      (line.split(' ')[1] ?? '').replaceAll(/\\([0-7]{3})/g, (_, octal: string) =>
        String.fromCharCode(Number.parseInt(octal, 8)),
      ),
    ),
  );
}

const BUSY_TIMEOUT_MS = 5000;
const BUSY_RETRY_MS = 20;

/**
 * True when something was mounted there, and now is not. What was killed a moment ago may still hold a file open, and a
 * loop device lets go of its file only when the last program that looks at it has closed it: so it is patient.
 */
export function unmount(path: string): boolean {
  if (!mountPoints().has(path)) return false;
  const deadline = performance.now() + BUSY_TIMEOUT_MS;
  for (;;) {
    try {
      runTool('umount', [path]);
      return true;
    } catch (error) {
      if (performance.now() > deadline || !/busy/.test(String(error))) throw error;
      sleepSync(BUSY_RETRY_MS);
    }
  }
}

/**
 * Unmounts what nothing can be read from or written to any more: its server is dead, or it has gone down. What was mounted on
 * top of it may live on in another mount namespace for as long as programs run there; that is not waited for.
 */
export function unmountDead(path: string): boolean {
  if (!mountPoints().has(path)) return false;
  try {
    runTool('umount', [path]);
  } catch (error) {
    if (!/busy/.test(String(error))) throw error;
    runTool('umount', ['--lazy', path]);
  }
  return true;
}

/** Something that outlives a killed kit and has to be removed again; a loop device is known by the file behind it. */
export type PowerResource =
  | { kind: 'directory'; path: string }
  | { kind: 'mount'; path: string }
  | { kind: 'loop'; path: string }
  /** A device of the device mapper, with its path below /dev/mapper. */
  | { kind: 'mapping'; path: string };

/** Where a resource is written down before it is made, and crossed out when it is gone. */
export interface PowerResourceRegistry {
  made(resource: PowerResource): void;
  gone(resource: PowerResource): void;
}

/** Copies a file without giving its holes room; where the filesystem can, blocks are shared and nothing is copied. */
export function copySparse(from: string, to: string): void {
  runTool('cp', ['--sparse=always', '--reflink=auto', from, to]);
}

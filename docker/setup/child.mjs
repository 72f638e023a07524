// Runs the programs of the set-up without blocking, so that progress can be reported meanwhile.
import { spawn } from 'node:child_process';

/** Number of characters of the output that are kept for a report of a failure. */
const KEPT_CHARS = 64 * 2 ** 10;
const running = new Set();

/** Ids of the programs that run. A set-up that takes over a lock waits until they are gone. */
export const runningPids = () => [...running].map((child) => child.pid).filter((pid) => pid !== undefined);

/** Ends the programs that may be interrupted at any time. Those of `runDetached` go on to their end. */
export function stopChildren() {
  for (const child of running) child.kill('SIGTERM');
}

/**
 * Runs a program and waits for its end.
 * @param {{ cwd?: string, env?: object, onLine?: (line: string) => void, onStart?: () => void }} options
 * @returns {Promise<{ ok: boolean, text: string }>} whether it ended with 0, and its output.
 */
export function run(command, args, { cwd, env = {}, onLine, onStart } = {}) {
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      cwd,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    running.add(child);
    onStart?.();
    let text = '';
    const end = (ok, more = '') => {
      running.delete(child);
      resolve({ ok, text: text + more });
    };
    for (const stream of [child.stdout, child.stderr]) {
      let rest = '';
      stream.setEncoding('utf8');
      stream.on('data', (chunk) => {
        text = (text + chunk).slice(-KEPT_CHARS);
        const lines = (rest + chunk).split('\n');
        rest = (lines.pop() ?? '').slice(-KEPT_CHARS);
        for (const line of lines) onLine?.(line);
      });
    }
    child.on('error', (error) => end(false, error.message));
    child.on('close', (code) => end(code === 0));
  });
}

/**
 * Runs a program that must not be interrupted, such as dpkg: neither Ctrl-C nor a dead set-up reaches it. Its output goes
 * to open files, so that it can go on without a reader.
 * @param {number[]} fds stdout, stderr and further file descriptors.
 */
export function runDetached(command, args, env, fds) {
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      env: { ...process.env, ...env },
      detached: true,
      stdio: ['ignore', ...fds],
    });
    child.on('error', (error) => resolve({ ok: false, error: error.message }));
    child.on('close', (code) => resolve({ ok: code === 0, error: '' }));
  });
}

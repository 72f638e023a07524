import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Service } from '../../../faults/fault.js';
import { removeTree } from '../../../faults/files/remove-tree.js';
import { allThreadsInState } from '../../../faults/thread-state.js';
import { until } from '../../../faults/waiting.js';
import { PASSAGE_MODE } from '../../host/directories.js';

/** States of threads that change no file: stopped, traced, or dead. */
const STILL = 'TtZX';
const STOP_TIMEOUT_MS = 2000;

/**
 * Stops every process of a cluster, does something, and lets them continue.
 * @returns undefined when a process did not stop in time.
 */
export async function whileStopped<T>(
  services: readonly Service[],
  work: () => Promise<T>,
): Promise<T | undefined> {
  try {
    const areStopped = await until(async () => {
      // Signal again each time: a process may have started another one before it stopped.
      await Promise.all(services.map((service) => service.signal('SIGSTOP')));
      return services.every((service) => service.pids().every((pid) => allThreadsInState(pid, STILL)));
    }, STOP_TIMEOUT_MS);
    return areStopped ? await work() : undefined;
  } finally {
    await Promise.all(services.map((service) => service.signal('SIGCONT')));
  }
}

/** Returns the path of the copy of a node's files at an instant. */
export function copyPath(dir: string, node: string, instant: number): string {
  return join(dir, `node-${node}.live-${instant}.tar`);
}

/**
 * Copies a directory as the running system shows it, owners, modes and empty directories included, into an archive.
 * @throws Error with the output of tar.
 */
export async function copyFiles(from: string, archive: string): Promise<void> {
  // Code 1: something changed meanwhile, as the time of a file that the kernel writes back. No process changes content.
  await runTar(
    ['--create', '--sparse', '--numeric-owner', '--file', archive, '--directory', from, '.'],
    [0, 1],
  );
  chmodSync(archive, 0o600);
}

/** Replaces a directory with the content of such an archive. @throws Error with the output of tar. */
export async function restoreFiles(archive: string, to: string): Promise<void> {
  removeTree(to);
  mkdirSync(to, { mode: PASSAGE_MODE });
  const how = ['--extract', '--same-owner', '--same-permissions', '--numeric-owner'];
  await runTar([...how, '--file', archive, '--directory', to], [0]);
}

async function runTar(args: readonly string[], allowed: readonly number[]): Promise<void> {
  const child = spawn('tar', args, { stdio: ['ignore', 'ignore', 'pipe'] });
  let output = '';
  child.stderr.on('data', (part: Buffer) => {
    output = `${output}${part.toString()}`.slice(-2000);
  });
  const [code] = (await once(child, 'close')) as [number | null];
  if (code === null || !allowed.includes(code)) throw new Error(`tar: ${output.trim() || `code ${code}`}`);
}

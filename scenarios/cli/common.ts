import { readdirSync } from 'node:fs';
import { resolve } from 'node:path';
import { KitError } from '../../conformance/errors.js';
import { SIGNAL_EXIT_CODES } from '../../conformance/exit-codes.js';
import type { Filesystem } from '../../faults/power/filesystem.js';
import { processPendingEvents } from '../../faults/waiting.js';
import { commandLine } from '../host/command-line.js';
import { makeWritableDirectory } from '../host/directories.js';
import type { Interrupts } from './interrupt.js';

/** Upper bound of random seeds, which are thus short enough to be typed. */
export const MAX_RANDOM_SEED = 1_000_000;

/** The result of work, or the exit code of the signal that interrupted it. */
export type InterruptibleResult<T> = { result: T } | { exitCode: number };

/**
 * Waits for the work. After an interruption it returns only the exit code: if the work fails then, the
 * interruption is the cause.
 * @throws the error of the work when no signal arrived.
 */
export async function unlessInterrupted<T>(
  interrupts: Interrupts,
  work: Promise<T>,
): Promise<InterruptibleResult<T>> {
  let outcome: InterruptibleResult<T> | undefined;
  try {
    outcome = { result: await work };
  } catch (error) {
    // A terminal's Ctrl-C also reaches the processes that the kit has started. The kit may notice their end
    // before it receives its own signal: without this line it would report their end as an error.
    await processPendingEvents();
    if (interrupts.exitCode() === undefined) throw error;
  }
  const exitCode = interrupts.exitCode();
  return outcome === undefined || exitCode !== undefined
    ? { exitCode: exitCode ?? SIGNAL_EXIT_CODES.SIGINT }
    : outcome;
}

/** Flags of every command that injects faults: which faults, and where. */
export interface FaultFlags {
  runtime: string;
  faults?: string[];
  power?: string;
  fs?: Filesystem;
}

/**
 * Makes the directory for the evidence of a run, and returns its absolute path. The directory must be empty,
 * so that the evidence of two runs is never mixed. It is made before the run, so that a wrong path is
 * reported at once and not after minutes.
 * @throws KitError bad-usage when it cannot be made or written to, or is not empty.
 */
export function makeEmptyDirectory(path: string): string {
  const full = resolve(path);
  makeWritableDirectory(full, `--out ${path}`);
  if (readdirSync(full).length > 0) {
    throw new KitError('bad-usage', `--out ${path}: expected a directory that is empty or does not exist`);
  }
  return full;
}

/**
 * Returns the command line that runs the gate, or another command with the same flags, with this seed on
 * the same runtime, power backend and filesystem.
 */
export function replayCommandLine(
  file: string | undefined,
  flags: FaultFlags & { rounds?: number; injections?: number },
  seed: number,
  budgetMs: number,
  command: 'gate' | 'explore' = 'gate',
): string {
  const args = [command, ...(file === undefined ? [] : [file]), '--seed', `${seed}`];
  if (flags.runtime !== 'process') args.push('--runtime', flags.runtime);
  if (flags.faults !== undefined) args.push('--faults', flags.faults.join(','));
  if (flags.power !== undefined) args.push('--power', flags.power);
  if (flags.fs !== undefined) args.push('--fs', formatFilesystem(flags.fs));
  if (flags.rounds !== undefined) args.push('--rounds', `${flags.rounds}`);
  if (flags.injections !== undefined) args.push('--injections', `${flags.injections}`);
  args.push('--budget', formatBudget(budgetMs));
  return commandLine(...args);
}

/** Formats a time for `--budget`: in seconds where that is exact, otherwise in milliseconds. */
export function formatBudget(ms: number): string {
  return ms % 1000 === 0 ? `${ms / 1000}s` : `${ms}ms`;
}

/** Formats a filesystem for `--fs`. */
export function formatFilesystem({ type, mountOptions }: Filesystem): string {
  return [type, mountOptions].filter(Boolean).join(':');
}

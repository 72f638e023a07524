import { readdirSync } from 'node:fs';
import { resolve } from 'node:path';
import { KitError } from '../../conformance/errors.js';
import { SIGNAL_EXIT_CODES } from '../../conformance/exit-codes.js';
import type { Filesystem } from '../../faults/power/filesystem.js';
import { processPendingEvents } from '../../faults/waiting.js';
import { makeWritableDirectory } from '../host/directories.js';
import { shellQuote } from '../host/shell.js';
import type { Interrupts } from './interrupt.js';

/** Seeds that are chosen at random stay short enough to be typed. */
export const MAX_RANDOM_SEED = 1_000_000;

/** What became of work that a signal may have stopped. */
export type InterruptibleResult<T> = { result: T } | { exitCode: number };

/** Waits for the work. What fails because everything is being stopped is no news: then there is only the exit code. */
export async function unlessInterrupted<T>(
  interrupts: Interrupts,
  work: Promise<T>,
): Promise<InterruptibleResult<T>> {
  let outcome: InterruptibleResult<T> | undefined;
  try {
    outcome = { result: await work };
  } catch (error) {
    // A terminal's Ctrl-C reaches what the kit has started too, whose end may be seen before the kit's own signal.
    await processPendingEvents();
    if (interrupts.exitCode() === undefined) throw error;
  }
  const exitCode = interrupts.exitCode();
  return outcome === undefined || exitCode !== undefined
    ? { exitCode: exitCode ?? SIGNAL_EXIT_CODES.SIGINT }
    : outcome;
}

/** How and where faults are done, as flags of every command that does some. */
export interface FaultFlags {
  runtime: string;
  faults?: string[];
  power?: string;
  fs?: Filesystem;
}

/** A directory for evidence, which of two runs is never mixed; it is made, told before the run and not after minutes of it. */
export function makeEmptyDirectory(path: string): string {
  const full = resolve(path);
  makeWritableDirectory(full, `--out ${path}`);
  if (readdirSync(full).length > 0) {
    throw new KitError('bad-usage', `--out ${path}: expected a directory that is empty or does not exist`);
  }
  return full;
}

/** The line that runs the gate, or another command of the same flags, with a seed on the same ground. */
export function replayCommandLine(
  file: string | undefined,
  flags: FaultFlags & { rounds?: number },
  seed: number,
  budgetMs: number,
  command: 'gate' | 'explore' = 'gate',
): string {
  const args = ['plugpull', command, ...(file === undefined ? [] : [file]), '--seed', `${seed}`];
  if (flags.runtime !== 'process') args.push('--runtime', flags.runtime);
  if (flags.faults !== undefined) args.push('--faults', flags.faults.join(','));
  if (flags.power !== undefined) args.push('--power', flags.power);
  if (flags.fs !== undefined)
    args.push('--fs', [flags.fs.type, flags.fs.mountOptions].filter(Boolean).join(':'));
  if (flags.rounds !== undefined) args.push('--rounds', `${flags.rounds}`);
  args.push('--budget', `${budgetMs}ms`);
  return args.map(shellQuote).join(' ');
}

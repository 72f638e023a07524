import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { KitError } from '../../conformance/errors.js';
import { commandLine } from '../host/command-line.js';
import { packageRoot } from '../host/version.js';

/** Variable that tells the program of the queue how the user starts it, for the commands that it prints. */
const COMMAND_VARIABLE = 'PLUGPULL_QUEUE_COMMAND';
const FORWARDED_SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/**
 * Runs the reference implementation's program with the rest of the command line. Resolves to its exit code.
 */
export async function queueCommand(args: readonly string[]): Promise<number> {
  const program = join(packageRoot(), 'dist/reference-impl/synchronous/main.js');
  if (!existsSync(program)) {
    throw new KitError(
      'kit-failed',
      `${program}: not there: expected a complete package, compiled in a checkout`,
    );
  }
  const child = spawn(process.execPath, [program, ...args], {
    stdio: 'inherit',
    env: { ...process.env, [COMMAND_VARIABLE]: commandLine('queue') },
  });
  // A terminal's Ctrl-C reaches the child too, but another sender may signal only this process: forward the
  // signal.
  for (const signal of FORWARDED_SIGNALS) process.on(signal, () => void child.kill(signal));
  const [code, signal] = (await once(child, 'exit')) as [number | null, NodeJS.Signals | null];
  return code ?? 128 + (signal === null ? 0 : constants.signals[signal]);
}

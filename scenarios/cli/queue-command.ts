import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { constants } from 'node:os';
import { join } from 'node:path';
import { KitError } from '../../conformance/errors.js';
import { EXIT_CODES } from '../../conformance/exit-codes.js';
import { commandLine } from '../host/command-line.js';
import { writeLines } from '../host/console.js';
import {
  DEFAULT_IMPLEMENTATION,
  findImplementation,
  IMPLEMENTATIONS,
  type Implementation,
  isBuilt,
} from '../host/implementations.js';
import { packageRoot } from '../host/version.js';
import { table } from '../report/table.js';

/** Variable that tells the program of the queue how the user starts it, for the commands that it prints. */
const COMMAND_VARIABLE = 'PLUGPULL_QUEUE_COMMAND';
const FORWARDED_SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
const HELP_FLAGS: ReadonlySet<string> = new Set(['--help', '-h']);
/**
 * Commands that followed `queue` directly while there was one implementation. Scripts may still have this form: they get
 * the new one.
 */
const COMMANDS_OF_OLD_FORM: ReadonlySet<string> = new Set([
  'install',
  'worker',
  'helper',
  'gateway',
  'inspect',
  'verify',
  'rebuild',
  'dead',
  'restore-check',
  'simulated-medium',
  'simulate',
]);

/**
 * Runs the program of a reference implementation with the rest of the command line. Without arguments it lists the
 * implementations.
 * @param name name of the implementation.
 * @param args arguments of its program.
 * @returns the exit code of the program.
 * @throws KitError bad-usage when there is no such implementation, kit-failed when its program is missing.
 */
export async function queueCommand(name: string | undefined, args: readonly string[]): Promise<number> {
  if (name === undefined || HELP_FLAGS.has(name)) {
    writeLines(process.stdout, overview());
    return EXIT_CODES.pass;
  }
  return runQueue(implementationOf(name, args), args);
}

function implementationOf(name: string, args: readonly string[]): Implementation {
  if (COMMANDS_OF_OLD_FORM.has(name))
    throw new KitError(
      'bad-usage',
      `queue ${name}: expected the name of an implementation before the command: ${commandLine('queue', DEFAULT_IMPLEMENTATION, name, ...args)}`,
    );
  return findImplementation(name, 'queue');
}

function overview(): string {
  const rows = IMPLEMENTATIONS.map((one) => [
    `  ${one.name}`,
    isBuilt(one) ? one.summary : `${one.summary} (not in this package)`,
  ]);
  return [
    `Usage: ${commandLine('queue', 'IMPLEMENTATION', 'COMMAND')} …`,
    '',
    'Runs a command of a reference implementation:',
    ...table(rows),
    '',
    `The commands of one: ${commandLine('queue', DEFAULT_IMPLEMENTATION, '--help')}`,
    '',
  ].join('\n');
}

async function runQueue(implementation: Implementation, args: readonly string[]): Promise<number> {
  const program = join(packageRoot(), implementation.program);
  if (!isBuilt(implementation)) {
    throw new KitError(
      'kit-failed',
      `${program}: not there: expected a complete package, compiled in a checkout`,
    );
  }
  const child = spawn(process.execPath, [program, ...args], {
    stdio: 'inherit',
    env: { ...process.env, [COMMAND_VARIABLE]: commandLine('queue', implementation.name) },
  });
  // A terminal's Ctrl-C reaches the child too, but another sender may signal only this process: forward the
  // signal.
  for (const signal of FORWARDED_SIGNALS) process.on(signal, () => void child.kill(signal));
  const [code, signal] = (await once(child, 'exit')) as [number | null, NodeJS.Signals | null];
  return code ?? 128 + (signal === null ? 0 : constants.signals[signal]);
}

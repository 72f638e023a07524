import { type Command, InvalidArgumentError, Option } from 'commander';
import { printLine } from '../../common/cli/output.js';
import { newProgram, runCommand } from '../../common/cli/program.js';
import { parseDurationMs, parseSize } from '../../common/cli/units.js';
import { linux } from '../../common/platform/linux.js';
import { addSimulateCommand } from '../../common/simulation/command.js';
import { realHost } from '../checkpoint/writer-process.js';
import { inspectQueue } from '../queue/inspect.js';
import { DEFAULT_INSTALL_OPTIONS, installQueue, SEGMENT_LIMITS } from '../queue/install.js';
import { rebuildQueue } from '../queue/rebuild.js';
import { verifyQueue } from '../queue/verify.js';
import { DEFAULT_RUN_SETTINGS, MIN_SEGMENTS } from '../settings.js';
import { restoreCheck } from './restore-check.js';
import { type ServeOptions, serve } from './serve.js';

const MAX_SEGMENTS = 1024;
const MAX_DEFAULT_QUEUES = 64;
const MAX_MEMORY_BYTES = 2 ** 40;
const MAX_DURATION_MS = 3_600_000;

interface InstallFlags {
  queue: string;
  segmentBytes: number;
  segments: number;
  queues: number;
}

/**
 * Runs one command of the queue. Data goes to stdout, messages go to stderr.
 * @returns the exit code: 0 success, 1 verify or simulate found a problem, 2 wrong usage or configuration, 3 simulate had no time
 * for a run, 4 internal error
 */
export function runProgram(argv: readonly string[]): Promise<number> {
  return runCommand(argv, createProgram);
}

function createProgram(setExitCode: (code: number) => void): Command {
  const program = newProgram(
    'A reference implementation: a memory queue with checkpoints and a log, behind HTTP.',
  );
  const command = (name: string, description: string) =>
    program
      .command(name)
      .description(description)
      .requiredOption('--queue <directory>', 'directory of the queue')
      .allowExcessArguments(false);

  const { segmentBytes, segments, queues } = DEFAULT_INSTALL_OPTIONS;
  command('install', 'creates the files of a queue')
    .addOption(
      option(
        '--segment-bytes <size>',
        'size of a segment of the log, a multiple of 4KiB',
        segmentBytes,
        segmentSize,
      ),
    )
    .addOption(
      option(
        '--segments <number>',
        'upper bound of the segments',
        segments,
        wholeNumber(MIN_SEGMENTS, MAX_SEGMENTS),
      ),
    )
    .addOption(
      option('--queues <number>', 'number of default queues', queues, wholeNumber(1, MAX_DEFAULT_QUEUES)),
    )
    .action(async ({ queue, ...options }: InstallFlags) => {
      await installQueue(queue, options, linux);
      await printLine({ event: 'installed', queue });
    });
  const run = DEFAULT_RUN_SETTINGS;
  command('serve', 'restores the queue, and serves it over HTTP')
    .addOption(option('--port <number>', 'port on 127.0.0.1; 0: any free one', 0, wholeNumber(0, 65_535)))
    .addOption(
      option('--checkpoint <duration>', 'time between two checkpoints', run.checkpointMs, duration(10)),
    )
    .addOption(
      option('--memory <size>', 'upper bound of the memory of all messages', run.memoryBytes, memorySize),
    )
    .addOption(option('--lease <duration>', 'time after which a lease ends', 30_000, duration(10)))
    .action(async (options: ServeOptions) => setExitCode(await serve(options)));
  command('inspect', 'prints the state of the queue, one JSON object per line')
    .option('--summary', 'prints the queues without their messages')
    .action(async ({ queue, summary = false }: { queue: string; summary?: boolean }) => {
      for (const line of inspectQueue(queue, summary, linux)) await printLine(line);
    });
  command('verify', 'checks the invariants of the queue; exit code 1 when one is broken').action(
    async ({ queue }: { queue: string }) => {
      const report = verifyQueue(queue, linux);
      await printLine(report);
      setExitCode(report.ok ? 0 : 1);
    },
  );
  command('rebuild', 'restores the queue as its server does at the start, and makes a checkpoint')
    .option('--from-nothing', 'moves the control record aside, and makes a new one out of slots and log')
    .action(async ({ queue, fromNothing = false }: { queue: string; fromNothing?: boolean }) => {
      await printLine(await rebuildQueue(queue, fromNothing, realHost));
    });
  program
    .command('restore-check')
    .description('restores the queues that stdin names, one after the other, and prints what each holds')
    .requiredOption('--stdin', 'reads requests from stdin, one JSON object per line')
    .action(restoreCheck);
  addSimulateCommand(
    program,
    async (options) => {
      const { simulateCheckpointed } = await import('../simulation/simulate.js');
      return simulateCheckpointed(options);
    },
    setExitCode,
  );
  return program;
}

function option<T>(flags: string, description: string, value: T, parse: (text: string) => T): Option {
  return new Option(flags, description).default(value).argParser(parse);
}

function wholeNumber(min: number, max: number) {
  return (text: string): number => {
    const value = Number(text);
    if (/^\d{1,15}$/.test(text) && value >= min && value <= max) return value;
    throw new InvalidArgumentError(`expected a whole number from ${min} to ${max}.`);
  };
}

function duration(minMs: number) {
  return (text: string): number => {
    const value = parseDurationMs(text);
    if (value !== undefined && value >= minMs && value <= MAX_DURATION_MS) return value;
    throw new InvalidArgumentError(`expected a duration from ${minMs}ms to 1h, such as 500ms or 5s.`);
  };
}

function memorySize(text: string): number {
  const value = parseSize(text);
  if (value !== undefined && value > 0 && value <= MAX_MEMORY_BYTES) return value;
  throw new InvalidArgumentError('expected a size from 1 byte to 1TiB, such as 512MiB.');
}

function segmentSize(text: string): number {
  const value = parseSize(text);
  const { min, max } = SEGMENT_LIMITS;
  if (value !== undefined && value >= min && value <= max && value % min === 0) return value;
  throw new InvalidArgumentError('expected a multiple of 4KiB up to 256MiB, such as 16MiB.');
}

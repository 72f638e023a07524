import { type Command, InvalidArgumentError, Option } from 'commander';
import { printLine } from '../../common/cli/output.js';
import { newProgram, runCommand } from '../../common/cli/program.js';
import { addSimulateCommand } from '../../common/simulation/command.js';
import { inspectQueue } from '../queue/inspect.js';
import { rebuildEach } from '../queue/rebuild.js';
import { verifyQueue } from '../queue/verify.js';
import { flagLayer, type SettingFlag, settingFlags } from '../settings/flags.js';
import { loadSettings } from '../settings/load.js';
import type { QueueSettings } from '../settings/settings.js';
import { addDeadCommands } from './dead.js';
import { install } from './install.js';
import { restoreCheck } from './restore-check.js';
import { serveGateway, serveHelper, serveWorker } from './serve.js';
import { simulatedMedium } from './simulated-medium.js';

const MAX_WORKERS = 64;

/**
 * Runs one command of the queue. Data goes to stdout, messages go to stderr.
 * @returns the exit code: 0 success, 1 verify or simulate found a problem or a dead letter was kept, 2 wrong usage
 * or configuration, 3 simulate had no time for a run, 4 internal error
 */
export function runProgram(argv: readonly string[], programPath: string): Promise<number> {
  return runCommand(argv, (setExitCode) => createProgram(programPath, setExitCode));
}

function createProgram(programPath: string, setExitCode: (code: number) => void): Command {
  const program = newProgram(
    'A reference implementation: a synchronous message queue behind a mail gateway.',
  );
  const flags = settingFlags();
  const command = (name: string, description: string) =>
    addSettingOptions(program.command(name), flags).description(description);

  command('install', 'creates the files of a queue at their full size').action(async (_, self: Command) => {
    await install(loadSettingsOf(self, flags, 'none'));
  });
  command('worker', 'runs one worker, which receives mail over SMTP, stores it and delivers it').action(
    async (_, self: Command) => {
      await serveWorker(loadSettingsOf(self, flags, 'needed'));
    },
  );
  command('helper', 'runs the helper of one pair, which syncs its data file to disk for the workers')
    .option('--pair <number>', 'number of the pair, from 0', parseWholeNumber(0, 63), 0)
    .action(async (options: { pair: number }, self: Command) => {
      const settings = loadSettingsOf(self, flags, 'needed');
      if (options.pair >= settings.pairs.length) {
        self.error(
          `error: --pair: found ${options.pair}, expected less than ${settings.pairs.length}, the number of pairs`,
        );
      }
      await serveHelper(settings, options.pair);
    });
  command('gateway', 'runs helpers and workers, and restarts those that die')
    .option('--workers <number>', 'number of workers', parseWholeNumber(1, MAX_WORKERS), 2)
    .option(
      '--smtp-ports <list>',
      'one SMTP port for each worker, such as 2525,2526; default: consecutive ports from --smtp-port on',
      parsePortList,
    )
    .action(async (options: { workers: number; smtpPorts?: number[] }, self: Command) => {
      const settings = loadSettingsOf(self, flags, 'needed');
      const { workers, smtpPorts: ports } = options;
      if (ports !== undefined && ports.length !== workers) {
        self.error(
          `error: --smtp-ports: found ${ports.length} ports, expected ${workers}, one for each worker`,
        );
      }
      await serveGateway(settings, {
        program: programPath,
        workers,
        ports,
        forwardedArguments: forwardedArguments(self, flags, settings),
      });
    });
  command('inspect', 'prints the state of the queue, one JSON object per line')
    .option('--summary', 'prints the pairs without their messages')
    .action(async ({ summary = false }: { summary?: boolean }, self: Command) => {
      for await (const line of inspectQueue(loadSettingsOf(self, flags, 'needed'), summary))
        await printLine(line);
    });
  command('verify', 'checks the invariants of the queue; exit code 1 when one is broken').action(
    async (_, self: Command) => {
      const report = await verifyQueue(loadSettingsOf(self, flags, 'needed'));
      await printLine(report);
      setExitCode(report.ok ? 0 : 1);
    },
  );
  command('rebuild', 'restores the index of every pair and of the dead letters from the data file')
    .option('--from-nothing', 'moves the old index aside and reads nothing from it')
    .action(async ({ fromNothing = false }: { fromNothing?: boolean }, self: Command) => {
      const { pairs, failed } = await rebuildEach(loadSettingsOf(self, flags, 'needed'), fromNothing);
      const named = failed.map(({ directory, error }) => ({ directory, error: error.message }));
      await printLine({ pairs, ...(failed.length > 0 && { failed: named }) });
      if (failed[0] !== undefined) throw failed[0].error;
    });
  addDeadCommands(program, {
    addSettingOptions: (to) => addSettingOptions(to, flags),
    load: (from) => loadSettingsOf(from, flags, 'needed'),
    setExitCode,
  });
  program
    .command('restore-check')
    .description('restores the queues that stdin names, one after the other, and prints what each holds')
    .requiredOption('--stdin', 'reads requests from stdin, one JSON object per line')
    .action(async () => {
      restoreCheck();
    });
  program
    .command('simulated-medium')
    .description('prints what a power cut may leave of a simulated file, for each request on stdin')
    .action(simulatedMedium);
  addSimulateCommand(
    program,
    async (options) => {
      const { simulateSynchronous } = await import('../simulation/simulate.js');
      return simulateSynchronous(options);
    },
    setExitCode,
  );
  return program;
}

function addSettingOptions(command: Command, flags: readonly SettingFlag[]): Command {
  command
    .option('--queue <directory>', 'directory of the queue')
    .option('--config <file>', 'settings file (JSON)');
  for (const { name, placeholder, description } of flags) {
    command.addOption(new Option(`--${name} <${placeholder}>`, description));
  }
  return command.allowExcessArguments(false);
}

function loadSettingsOf(
  command: Command,
  flags: readonly SettingFlag[],
  installed: 'needed' | 'none',
): QueueSettings {
  const options = flagValues(command, flags);
  const { queue, config } = command.opts<{ queue?: string; config?: string }>();
  return loadSettings({
    ...(queue === undefined ? {} : { directory: queue }),
    ...(config === undefined ? {} : { configFile: config }),
    flags: flagLayer(options),
    installed,
  });
}

function flagValues(command: Command, flags: readonly SettingFlag[]): Map<string, string> {
  const values = new Map<string, string>();
  for (const { name } of flags) {
    const value: unknown = command.getOptionValue(new Option(`--${name} <v>`).attributeName());
    if (typeof value === 'string') values.set(name, value);
  }
  return values;
}

/**
 * Returns the arguments that the gateway forwards to its services: queue, settings
 * file and flags, but not the port.
 */
function forwardedArguments(
  command: Command,
  flags: readonly SettingFlag[],
  settings: QueueSettings,
): string[] {
  const { config } = command.opts<{ config?: string }>();
  const givenFlags = [...flagValues(command, flags)].filter(([name]) => name !== 'smtp-port');
  return [
    '--queue',
    settings.directory,
    ...(config === undefined ? [] : ['--config', config]),
    ...givenFlags.flatMap(([name, value]) => [`--${name}`, value]),
  ];
}

function parseWholeNumber(min: number, max: number) {
  return (text: string): number => {
    const value = Number(text);
    if (/^\d+$/.test(text) && value >= min && value <= max) return value;
    throw new InvalidArgumentError(`expected a whole number from ${min} to ${max}.`);
  };
}

function parsePortList(text: string): number[] {
  return text.split(',').map((part) => {
    if (/^\d{1,5}$/.test(part) && Number(part) <= 65_535) return Number(part);
    throw new InvalidArgumentError('expected ports such as 2525,2526.');
  });
}

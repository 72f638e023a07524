#!/usr/bin/env node
import { Command, CommanderError } from 'commander';
import { KitError, messageOf } from '../../conformance/errors.js';
import { protocolNames } from '../../conformance/target-file/starter.js';
import { stateDirectory } from '../host/registry.js';
import { kitVersion } from '../host/version.js';
import type { CertifyFlags } from './certify-command.js';
import type { ExploreFlags } from './explore-command.js';
import {
  collectReporters,
  parseBudget,
  parseCount,
  parseFilesystem,
  parseIndex,
  parseNames,
  parseSeed,
} from './flags.js';
import type { GateFlags } from './gate-command.js';
import type { InitFlags } from './init-command.js';
import { watchInterrupts } from './interrupt.js';
import type { PlantedFlags } from './planted-command.js';
import type { ReplayFlags } from './replay-command.js';
import type { SweepFlags } from './sweep-command.js';
import type { SystemsFlags } from './systems-command.js';

// Each command is loaded when it is asked for: all of them together take half a second.

/** Time for every fault that the reference implementation claims, and for twenty cuts of its power. */
const GATE_BUDGET_MS = 90_000;
const DEFAULT_BUDGET_MS = 60_000;
const CERTIFY_BUDGET_MS = 300_000;
const USAGE = 2;
const KIT_FAILED = 4;

// Who reads our output may stop reading: that ends what we say, not what we do.
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error;
  });
}

const program = new Command('plugpull')
  .description(
    'Pulls the plug on a message queue, again and again, and shows that no confirmed message is lost.',
  )
  .version(kitVersion())
  .enablePositionalOptions()
  .exitOverride();

program
  .command('gate')
  .description('the time-boxed check for CI (default target: the reference implementation)')
  .argument('[target]', 'target definition, a JSON file')
  .option('--runtime <name>', 'where the target runs: process, docker or vm', 'process')
  .option('--faults <a,b>', 'only these of the faults that the target claims to survive', parseNames)
  .option('--power <backend>', 'how the power is cut: blocklog or flakey (default: the best that is there)')
  .option(
    '--fs <type>',
    'filesystem on the disk whose power is cut: ext4 or xfs, with mount options as ext4:commit=1,data=journal',
    parseFilesystem,
  )
  .option(
    '--seed <n>',
    'makes the schedule and the workload; default: a random one, named in the report',
    parseSeed,
  )
  .option('--budget <time>', 'when it has to be over, such as 60s or 5m', parseBudget, GATE_BUDGET_MS)
  .option('--out <dir>', 'keeps the evidence (history, schedule, logs) there')
  .option('--keep', 'keeps the evidence when all passed, too')
  .option(
    '--reporter <name[:file]>',
    'list, json, junit, tap or github; several with commas between, such as list,junit:report.xml (default: list)',
    collectReporters,
  )
  .option('--json', 'prints the result as one JSON object to stdout')
  .action(async (target: string | undefined, flags: GateFlags) => {
    const interrupts = watchInterrupts((line) => process.stderr.write(`${line}\n`));
    const { gateCommand } = await import('./gate-command.js');
    process.exitCode = await gateCommand(target, flags, interrupts);
  });

program
  .command('certify')
  .description(
    'measures every requirement that the target claims, and writes a certificate with its evidence',
  )
  .argument('[target]', 'target definition, a JSON file (default: the reference implementation)')
  .option('--runtime <name>', 'where the target runs: process, docker or vm', 'process')
  .option('--power <backend>', 'as for gate')
  .option('--fs <type>', 'as for gate', parseFilesystem)
  .option('--seed <n>', 'as for gate', parseSeed)
  .option('--budget <time>', 'for all levels together, such as 5m', parseBudget, CERTIFY_BUDGET_MS)
  .option('--out <dir>', 'where certificate and evidence go (default: a new directory below .plugpull)')
  .option(
    '--reporter <name[:file]>',
    'list, json, junit, tap or github; several with commas between, such as list,junit:report.xml (default: list)',
    collectReporters,
  )
  .option('--json', 'prints the result as one JSON object to stdout')
  .action(async (target: string | undefined, flags: CertifyFlags) => {
    const interrupts = watchInterrupts((line) => process.stderr.write(`${line}\n`));
    const { certifyCommand } = await import('./certify-command.js');
    process.exitCode = await certifyCommand(target, flags, interrupts);
  });

program
  .command('verify')
  .description('evaluates the evidence of a certificate again; exit code 1 when anything was changed')
  .argument('<certificate>', 'the file certificate.json, with its evidence beside it')
  .option('--json', 'prints one JSON object to stdout')
  .action(async (certificate: string, flags: { json?: boolean }) => {
    const { verifyCommand } = await import('./verify-command.js');
    process.exitCode = verifyCommand(certificate, flags);
  });

program
  .command('replay')
  .description('one failure again, from the bundle that a violation left')
  .argument('<bundle>', 'the file')
  .option('--target <file>', 'the target, where it is not installed as it was (or is to be tried mended)')
  .option('--runtime <name>', 'as for gate; default: as it was')
  .option('--runs <n>', 'how often a race is run again', parseCount, 5)
  .option('--budget <time>', 'no run is begun after it', parseBudget, DEFAULT_BUDGET_MS)
  .option('--shrink', 'looks for the smallest schedule that still shows it, and writes that as a bundle too')
  .option(
    '--shell',
    "leaves the disk mounted (until `clean`) and prints how to start the target's recovery by hand",
  )
  .option(
    '--at <n>',
    'what there is at entry n of the log of writes; with --shell the disk as of it, mounted',
    parseIndex,
  )
  .option('--json', 'prints the result as one JSON object to stdout')
  .action(async (bundle: string, flags: ReplayFlags) => {
    const interrupts = watchInterrupts((line) => process.stderr.write(`${line}\n`));
    const { replayCommand } = await import('./replay-command.js');
    process.exitCode = await replayCommand(bundle, flags, interrupts);
  });

program
  .command('sweep')
  .description(
    'kills every service at its system calls, one after the other, and lets each sync and write fail',
  )
  .argument('[target]', 'as for gate')
  .option('--runtime <name>', 'as for gate', 'process')
  .option('--faults <a,b>', 'kill-syscall, io-error (default: both, as far as claimed)', parseNames)
  .option('--seed <n>', 'makes the workload', parseSeed)
  .option(
    '--budget <time>',
    'as many places as there is time for, evenly spread',
    parseBudget,
    DEFAULT_BUDGET_MS,
  )
  .option('--each <n>', 'no more than so many places of each kind of call', parseCount)
  .option('--out <dir>', 'keeps the evidence there')
  .option('--json', 'prints the result as one JSON object to stdout')
  .action(async (target: string | undefined, flags: SweepFlags) => {
    const interrupts = watchInterrupts((line) => process.stderr.write(`${line}\n`));
    const { sweepCommand } = await import('./sweep-command.js');
    process.exitCode = await sweepCommand(target, flags, interrupts);
  });

program
  .command('init')
  .description('writes a target file to start from')
  .option('--protocol <name>', `what the queue speaks: ${protocolNames().join(', ')}`, 'http')
  .option('--name <name>', 'name of the target, used in reports', 'my-queue')
  .option('--out <file>', 'where it goes; never over another file (default: NAME.json)')
  .action(async (flags: InitFlags) => {
    const { initCommand } = await import('./init-command.js');
    process.exitCode = initCommand(flags);
  });

program
  .command('check')
  .description('says what is wrong with a target file, key by key, and starts nothing')
  .argument('<target>', 'target definition, a JSON file')
  .option('--json', 'prints one JSON object to stdout')
  .action(async (target: string, flags: { json?: boolean }) => {
    const { checkCommand } = await import('./check-command.js');
    process.exitCode = checkCommand(target, flags);
  });

program
  .command('explore')
  .description('the crash states of one recorded run (default target: the reference implementation)')
  .argument('[target]', 'target definition, a JSON file')
  .option('--runtime <name>', 'where the target runs: process', 'process')
  .option(
    '--fs <type>',
    'filesystem of the recorded disk: ext4 or xfs, with mount options as ext4:commit=1,data=journal',
    parseFilesystem,
  )
  .option(
    '--seed <n>',
    'makes the workload and the choice of states; default: a random one, named in the report',
    parseSeed,
  )
  .option('--budget <time>', 'when it has to be over, such as 60s or 5m', parseBudget, DEFAULT_BUDGET_MS)
  .option('--states <n>', 'no more than so many different disks', parseCount)
  .option(
    '--recording <dir>',
    'explores what --out kept of an earlier exploration; the target is not loaded again',
  )
  .option('--out <dir>', 'keeps the evidence (history, image, log of writes) there')
  .option('--keep', 'keeps the evidence when all passed, too')
  .option('--json', 'prints the result as one JSON object to stdout')
  .action(async (target: string | undefined, flags: ExploreFlags) => {
    const interrupts = watchInterrupts((line) => process.stderr.write(`${line}\n`));
    const { exploreCommand } = await import('./explore-command.js');
    process.exitCode = await exploreCommand(target, flags, interrupts);
  });

program
  .command('doctor')
  .description('which runtimes, faults and power backends this machine has, and how to get the others')
  .option('--json', 'prints one JSON object to stdout')
  .action(async (flags: { json?: boolean }) => {
    const { doctorCommand } = await import('./doctor-command.js');
    process.exitCode = await doctorCommand(flags);
  });

program
  .command('clean')
  .description('removes what killed runs left behind, and nothing else')
  .option('--json', 'prints one JSON object to stdout')
  .action(async (flags: { json?: boolean }) => {
    const { cleanCommand } = await import('./clean-command.js');
    process.exitCode = await cleanCommand(flags);
  });

const lab = program
  .command('lab')
  .description('the virtual machine with its own kernel, device mapper and container engine');
for (const [name, description, commandName] of [
  ['up', 'builds it when it has not been built, and starts it', 'labUpCommand'],
  ['down', 'ends it; nothing but the built image stays', 'labDownCommand'],
  ['status', 'whether it is up, and where', 'labStatusCommand'],
] as const) {
  lab
    .command(name)
    .description(description)
    .option('--json', 'prints one JSON object to stdout')
    .action(async (flags: { json?: boolean }) => {
      const { [commandName]: action } = await import('./lab-command.js');
      process.exitCode = await action(flags);
    });
}

program
  .command('planted')
  .description(
    'plants known bugs in copies of the reference implementation and shows that the kit finds them',
  )
  .argument('[ids...]', 'which ones (default: all)')
  .option(
    '--modes <a,b>',
    'who looks for them, in this order: gate, simulate, explore, flakey (the gate under dm-flakey, here or in the lab VM)',
    parseNames,
    ['gate', 'simulate', 'explore'],
  )
  .option('--every-mode', 'goes on with the other modes when one has found a bug')
  .option('--jobs <n>', 'so many hunts at a time (default: 2, or 1 on one processor)', parseCount)
  .option('--original <n>', 'instead: so many gates on the original, which must not turn red', parseCount)
  .option('--write', 'keeps the results in conformance/planted/results.json and in the README')
  .option('--seed <n>', 'as for gate', parseSeed)
  .option('--budget <time>', 'for each bug and mode, such as 60s', parseBudget, DEFAULT_BUDGET_MS)
  .option('--json', 'prints the result as one JSON object or array to stdout')
  .action(async (ids: string[], flags: PlantedFlags) => {
    const interrupts = watchInterrupts((line) => process.stderr.write(`${line}\n`));
    const { plantedCommand } = await import('./planted-command.js');
    process.exitCode = await plantedCommand(ids, flags, interrupts);
  });

program
  .command('systems')
  .description('runs the gate on real systems and holds what it finds against what is expected of each')
  .argument('[names...]', 'which ones (default: all)')
  .option('--runtime <name>', 'as for gate', 'process')
  .option('--faults <a,b>', 'only runs with one of these faults', parseNames)
  .option('--power <backend>', 'as for gate')
  .option('--seed <n>', 'as for gate', parseSeed)
  .option('--budget <time>', 'for each run, such as 20s (default: as in expected.json)', parseBudget)
  .option('--json', 'prints the result as one JSON object to stdout')
  .action(async (names: string[], flags: SystemsFlags) => {
    const interrupts = watchInterrupts((line) => process.stderr.write(`${line}\n`));
    const { systemsCommand } = await import('./systems-command.js');
    process.exitCode = await systemsCommand(names, flags, interrupts);
  });

program
  .command('queue')
  .description(
    "the reference implementation's own commands: install, worker, helper, inspect, verify, rebuild, …",
  )
  .argument('[args...]')
  .helpOption(false)
  .allowUnknownOption()
  .passThroughOptions()
  .action(async (args: string[]) => {
    const { queueCommand } = await import('./queue-command.js');
    process.exitCode = await queueCommand(args);
  });

// What fails in a timer or an event has nobody to catch it. Leaving runs what listens to `exit`, which stops the target.
process.on('uncaughtException', (error) => {
  reportError(error);
  process.exit();
});

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? 0 : USAGE;
  else {
    reportError(error);
    // What failed may have left something behind that would keep this process alive.
    process.exit();
  }
}

/** One line for what a person can do something about; the stack besides for what is a bug of the kit. */
function reportError(error: unknown): void {
  const isKitError = error instanceof KitError;
  const writeFailed = !isKitError && isWriteFailure(error);
  const hint = writeFailed
    ? `; expected room, and the right to write, in --out and in ${stateDirectory()} (PLUGPULL_STATE)`
    : '';
  process.stderr.write(`plugpull: ${messageOf(error)}${hint}\n`);
  if (!isKitError && !writeFailed && error instanceof Error) process.stderr.write(`${error.stack}\n`);
  process.exitCode = isKitError ? error.exitCode : KIT_FAILED;
}

/** Where a run writes there is no room, or no right to. */
function isWriteFailure(error: unknown): boolean {
  if (!(error instanceof Error && 'code' in error)) return false;
  const noSpaceCodes: unknown[] = ['ENOSPC', 'EDQUOT', 'EROFS'];
  const forbiddenCodes: unknown[] = ['EACCES', 'EPERM'];
  return noSpaceCodes.includes(error.code) || ('path' in error && forbiddenCodes.includes(error.code));
}

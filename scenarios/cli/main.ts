#!/usr/bin/env node
import { Command, CommanderError, Option } from 'commander';
import { KitError, messageOf } from '../../conformance/errors.js';
import { EXIT_CODES } from '../../conformance/exit-codes.js';
import { protocolNames } from '../../conformance/target-file/starter.js';
import { ignoreClosedPipes, log } from '../host/console.js';
import { allowPassingThrough } from '../host/directories.js';
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

// Each command is imported when it runs, because importing all of them takes half a second.

/**
 * Default budget of a gate: enough for every fault that the reference implementation claims, and for 20
 * power cuts.
 */
const GATE_BUDGET = '90s';
const CERTIFY_BUDGET = '5m';
const DEFAULT_BUDGET = '60s';

const TARGET_HELP = 'target file (JSON); default: the reference implementation';
const TARGET_FILE_HELP = 'target file (JSON)';
const RANDOM_SEED_HELP = 'default: a random seed, which the report names';
const POWER_HELP = 'backend of power cuts: blocklog or flakey; default: the better one that this machine has';
const FILESYSTEM_HELP =
  'ext4 or xfs, with mount options after a colon, such as ext4:commit=1,data=journal; default: ext4';
const REPORTER_HELP =
  'form of the report: list, json, junit, tap or github, with a file after a colon; ' +
  'several with commas between, such as list,junit:report.xml; default: list';
const JSON_HELP = 'prints the result as one JSON object to stdout';

ignoreClosedPipes();
allowPassingThrough();

const program = new Command('plugpull')
  .description('Pulls the plug on message queues and proves that no confirmed message is lost.')
  .version(kitVersion())
  .enablePositionalOptions()
  .exitOverride();

program
  .command('gate')
  .description('injects faults until the budget is used or a requirement is violated; the check to run in CI')
  .argument('[target]', TARGET_HELP)
  .addOption(runtimeOption())
  .option(
    '--faults <a,b>',
    'injects only these faults; default: every fault that the target claims to survive',
    parseNames,
  )
  .option('--power <backend>', POWER_HELP)
  .option('--fs <type>', `filesystem of the disk whose power is cut: ${FILESYSTEM_HELP}`, parseFilesystem)
  .option('--seed <n>', `seed of the fault schedule and the workload; ${RANDOM_SEED_HELP}`, parseSeed)
  .addOption(budgetOption('upper bound of the whole run, such as 60s or 5m', GATE_BUDGET))
  .option(
    '--rounds <n>',
    'stops after this many rounds; --budget still ends the run when it is used first',
    parseCount,
  )
  .option(
    '--injections <n>',
    'stops after this many injections of faults; --budget still ends the run when it is used first',
    parseCount,
  )
  .option('--out <dir>', 'empty or new directory that keeps the evidence (history, schedules, logs)')
  .option('--keep', 'keeps the evidence even when everything passed')
  .option('--reporter <name[:file]>', REPORTER_HELP, collectReporters)
  .option('--json', JSON_HELP)
  .action(async (target: string | undefined, flags: GateFlags) => {
    const interrupts = watchInterrupts();
    const { gateCommand } = await import('./gate-command.js');
    process.exitCode = await gateCommand(target, flags, interrupts);
  });

program
  .command('certify')
  .description(
    'measures every requirement that the target claims, and writes a certificate with its evidence',
  )
  .argument('[target]', TARGET_HELP)
  .addOption(runtimeOption())
  .option('--power <backend>', POWER_HELP)
  .option('--fs <type>', `filesystem of the disk whose power is cut: ${FILESYSTEM_HELP}`, parseFilesystem)
  .option('--seed <n>', `seed of the fault schedules and the workloads; ${RANDOM_SEED_HELP}`, parseSeed)
  .addOption(budgetOption('upper bound of all levels together, such as 5m', CERTIFY_BUDGET))
  .option(
    '--out <dir>',
    'empty or new directory for the certificate and its evidence; default: a new directory below .plugpull',
  )
  .option('--reporter <name[:file]>', REPORTER_HELP, collectReporters)
  .option('--json', JSON_HELP)
  .action(async (target: string | undefined, flags: CertifyFlags) => {
    const interrupts = watchInterrupts();
    const { certifyCommand } = await import('./certify-command.js');
    process.exitCode = await certifyCommand(target, flags, interrupts);
  });

program
  .command('verify')
  .description('evaluates the evidence of a certificate again; exit code 1 when anything was changed')
  .argument('<certificate>', 'the file certificate.json, beside its folder evidence')
  .option('--json', JSON_HELP)
  .action(async (certificate: string, flags: { json?: boolean }) => {
    const { verifyCommand } = await import('./verify-command.js');
    process.exitCode = verifyCommand(certificate, flags);
  });

program
  .command('replay')
  .description('reproduces one violation from the bundle that it left')
  .argument('<bundle>', 'bundle of a violation, a .tar.gz file')
  .option(
    '--target <file>',
    'target file to use instead of the target in the bundle, such as a repaired one; ' +
      'on a crash state this tests only its recovery',
  )
  .option(
    '--runtime <name>',
    'where the services run: process, docker or vm; default: where they ran when the violation was found',
  )
  .option('--runs <n>', 'number of runs of the round; a crash state needs only one', parseCount, 5)
  .addOption(
    budgetOption('starts no further run after this time; --shrink has the same time again', DEFAULT_BUDGET),
  )
  .option(
    '--shrink',
    'looks for a smaller schedule or crash state that shows the violation too, and writes it as a bundle',
  )
  .option(
    '--shell',
    'mounts the disk of the failure until `plugpull clean`, and prints how to start the recovery by hand',
  )
  .option(
    '--at <n>',
    'describes the write log around entry n, from 0; with --shell mounts the disk as it was before that entry',
    parseIndex,
  )
  .option('--json', JSON_HELP)
  .action(async (bundle: string, flags: ReplayFlags) => {
    const interrupts = watchInterrupts();
    const { replayCommand } = await import('./replay-command.js');
    process.exitCode = await replayCommand(bundle, flags, interrupts);
  });

program
  .command('sweep')
  .description(
    'kills every service at its system calls, one after the other, and makes syncs and writes fail',
  )
  .argument('[target]', TARGET_HELP)
  .addOption(runtimeOption())
  .option(
    '--faults <a,b>',
    'injects only these faults: kill-syscall, io-error; default: those of both that the target claims to survive',
    parseNames,
  )
  .option('--seed <n>', `seed of the workload; ${RANDOM_SEED_HELP}`, parseSeed)
  .addOption(
    budgetOption('upper bound of the whole run; the calls tried by then are evenly spread', DEFAULT_BUDGET),
  )
  .option('--each <n>', 'tries at most this many system calls of each kind', parseCount)
  .option('--calls <n>', 'tries at most this many system calls in total', parseCount)
  .option('--out <dir>', 'empty or new directory that keeps the evidence (history, schedule, logs)')
  .option('--json', JSON_HELP)
  .action(async (target: string | undefined, flags: SweepFlags) => {
    const interrupts = watchInterrupts();
    const { sweepCommand } = await import('./sweep-command.js');
    process.exitCode = await sweepCommand(target, flags, interrupts);
  });

program
  .command('init')
  .description('writes a target file to start from')
  .addOption(
    new Option('--protocol <name>', `protocol of the queue: ${protocolNames().join(', ')}`).default(
      'http',
      'http',
    ),
  )
  .addOption(
    new Option('--name <name>', 'name of the target, used in reports').default('my-queue', 'my-queue'),
  )
  .option('--out <file>', 'path of the new file, which must not exist; default: NAME.json')
  .action(async (flags: InitFlags) => {
    const { initCommand } = await import('./init-command.js');
    process.exitCode = initCommand(flags);
  });

program
  .command('check')
  .description('checks a target file and reports each problem by its key; starts nothing')
  .argument('<target>', TARGET_FILE_HELP)
  .option(
    '--runtime <name>',
    'docker: also looks into the images, which it pulls or builds, for programs, users and the tools of faults',
  )
  .option('--json', JSON_HELP)
  .action(async (target: string, flags: { json?: boolean; runtime?: string }) => {
    const { checkCommand } = await import('./check-command.js');
    process.exitCode = await checkCommand(target, flags);
  });

program
  .command('explore')
  .description('records one run and tests the disks that a power cut could have left (crash states)')
  .argument('[target]', TARGET_HELP)
  .addOption(runtimeOption('where the services of the target run; only process is supported'))
  .option('--fs <type>', `filesystem of the recorded disk: ${FILESYSTEM_HELP}`, parseFilesystem)
  .option(
    '--seed <n>',
    `seed of the workload and of the choice of crash states; ${RANDOM_SEED_HELP}`,
    parseSeed,
  )
  .addOption(budgetOption('upper bound of the whole run, such as 60s or 5m', DEFAULT_BUDGET))
  .option(
    '--states <n>',
    'tests at most this many different crash states of the run, and of each recovery that is cut',
    parseCount,
  )
  .option(
    '--recording <dir>',
    'explores the recording that --out of an earlier exploration kept; records no new run',
  )
  .option('--out <dir>', 'empty or new directory that keeps the evidence (history, disk image, write log)')
  .option('--keep', 'keeps the evidence even when everything passed')
  .option('--json', JSON_HELP)
  .action(async (target: string | undefined, flags: ExploreFlags) => {
    const interrupts = watchInterrupts();
    const { exploreCommand } = await import('./explore-command.js');
    process.exitCode = await exploreCommand(target, flags, interrupts);
  });

program
  .command('doctor')
  .description(
    'lists the runtimes, faults and power backends that this machine has, and how to get the missing ones',
  )
  .option('--json', JSON_HELP)
  .action(async (flags: { json?: boolean }) => {
    const { doctorCommand } = await import('./doctor-command.js');
    process.exitCode = await doctorCommand(flags);
  });

program
  .command('clean')
  .description('removes what killed runs left behind; does not touch runs that are running')
  .option('--all', 'also removes what runs of this user with another state directory left on this machine')
  .option('--json', JSON_HELP)
  .action(async (flags: { json?: boolean; all?: boolean }) => {
    const { cleanCommand } = await import('./clean-command.js');
    process.exitCode = await cleanCommand(flags);
  });

const lab = program
  .command('lab')
  .description(
    'manages the lab VM, a virtual machine with its own kernel, device mapper and container engine',
  );
for (const [name, description, commandName] of [
  ['up', 'builds the image of the VM when there is none, and starts the VM', 'labUpCommand'],
  ['down', 'stops the VM; only its built image stays', 'labDownCommand'],
  [
    'status',
    'prints whether the VM is up, and its addresses; exit code 3 when it is not up',
    'labStatusCommand',
  ],
] as const) {
  lab
    .command(name)
    .description(description)
    .option('--json', JSON_HELP)
    .action(async (flags: { json?: boolean }) => {
      const { [commandName]: action } = await import('./lab-command.js');
      process.exitCode = await action(flags);
    });
}

program
  .command('planted')
  .description('plants known bugs in copies of the reference implementation and hunts them')
  .argument('[ids...]', 'ids of the bugs; default: all')
  .addOption(
    new Option(
      '--modes <a,b>',
      'modes of the hunt: gate, simulate, explore, flakey (a gate with power cuts by dm-flakey)',
    )
      .argParser(parseNames)
      .default(['gate', 'simulate', 'explore'], 'gate,simulate,explore'),
  )
  .option('--every-mode', 'goes on with the other modes after one has found the bug')
  .option('--jobs <n>', 'number of hunts at a time; default: 2, or 1 on one processor', parseCount)
  .option('--original <n>', 'runs this many gates on the original instead; none of them may fail', parseCount)
  .option('--write', 'writes the results to conformance/planted/results.json and to the table in the manual')
  .option('--seed <n>', 'seed of every hunt; default: a random seed', parseSeed)
  .addOption(budgetOption('upper bound for each bug and mode, such as 60s', DEFAULT_BUDGET))
  .option('--json', 'prints the result as one JSON object or array to stdout')
  .action(async (ids: string[], flags: PlantedFlags) => {
    const interrupts = watchInterrupts();
    const { plantedCommand } = await import('./planted-command.js');
    process.exitCode = await plantedCommand(ids, flags, interrupts);
  });

program
  .command('systems')
  .description(
    'runs the gate on real systems and compares each result with the expected one. As root on Debian or Ubuntu it ' +
      'gets missing systems from their packages; PLUGPULL_NO_INSTALL=1 turns that off',
  )
  .argument('[names...]', 'names of the systems; default: all')
  .addOption(runtimeOption())
  .option('--faults <a,b>', 'runs only the gates that have one of these faults', parseNames)
  .option('--power <backend>', POWER_HELP)
  .option('--seed <n>', `seed of every gate; ${RANDOM_SEED_HELP}`, parseSeed)
  .addOption(budgetOption('upper bound of each gate, such as 20s; default: as in expected.json'))
  .option('--jobs <n>', 'number of systems that are measured at once; default: 1', parseCount)
  .option('--json', JSON_HELP)
  .action(async (names: string[], flags: SystemsFlags) => {
    const interrupts = watchInterrupts();
    const { systemsCommand } = await import('./systems-command.js');
    process.exitCode = await systemsCommand(names, flags, interrupts);
  });

program
  .command('queue')
  .description(
    'runs a command of the reference implementation, such as install, worker, inspect or verify; see queue --help',
  )
  .argument('[args...]')
  .helpOption(false)
  .allowUnknownOption()
  .passThroughOptions()
  .action(async (args: string[]) => {
    const { queueCommand } = await import('./queue-command.js');
    process.exitCode = await queueCommand(args);
  });

// No caller can catch an error of a timer or an event. The call of exit runs the listeners of `exit`, which
// stop the target.
process.on('uncaughtException', (error) => {
  reportError(error);
  process.exit();
});

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError)
    process.exitCode = error.exitCode === 0 ? EXIT_CODES.pass : EXIT_CODES.usage;
  else {
    reportError(error);
    // Exit explicitly: the failed command may have left an open handle that would keep this process alive.
    process.exit();
  }
}

function runtimeOption(description = 'where the services of the target run: process, docker or vm'): Option {
  return new Option('--runtime <name>', description).default('process', 'process');
}

/**
 * Makes the option `--budget`.
 * @param defaultTime the default; the help shows it as it is written here.
 */
function budgetOption(description: string, defaultTime?: string): Option {
  const option = new Option('--budget <time>', description).argParser(parseBudget);
  return defaultTime === undefined ? option : option.default(parseBudget(defaultTime), defaultTime);
}

/**
 * Reports an error on one line, and sets the exit code. Prints the stack too when the error is a bug of the
 * kit: the user can correct only the other errors.
 */
function reportError(error: unknown): void {
  const isKitError = error instanceof KitError;
  const writeFailed = !isKitError && isWriteFailure(error);
  const hint = writeFailed
    ? `; expected room, and the right to write, in --out and in ${stateDirectory()} (PLUGPULL_STATE)`
    : '';
  log(`plugpull: ${messageOf(error)}${hint}`);
  if (!isKitError && !writeFailed && error instanceof Error) log(`${error.stack}`);
  process.exitCode = isKitError ? error.exitCode : EXIT_CODES.kitFailed;
}

/** Checks whether an error means that there is no free space, or no permission, to write a file. */
function isWriteFailure(error: unknown): boolean {
  if (!(error instanceof Error && 'code' in error)) return false;
  const noSpaceCodes: unknown[] = ['ENOSPC', 'EDQUOT', 'EROFS'];
  const forbiddenCodes: unknown[] = ['EACCES', 'EPERM'];
  return noSpaceCodes.includes(error.code) || ('path' in error && forbiddenCodes.includes(error.code));
}

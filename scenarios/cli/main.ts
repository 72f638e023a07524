#!/usr/bin/env node
import type { Option as CommandOption, Command as CommandType } from 'commander';
import type { CertifyFlags } from './certify-command.js';
import type { ExploreFlags } from './explore-command.js';
import type { GateFlags } from './gate-command.js';
import type { InitFlags } from './init-command.js';
import type { PlantedFlags } from './planted-command.js';
import type { ReplayFlags } from './replay-command.js';
import type { ReportFlags } from './report-command.js';
import type { SweepFlags } from './sweep-command.js';
import type { SystemsFlags } from './systems-command.js';
import type { VerifyFlags } from './verify-command.js';

// This file imports nothing in the usual way: Node would report a module that cannot be loaded, as with too few open
// files, by a stack trace and exit code 1, which means a violation. No caller can catch an error of a timer or an event
// either. The call of exit runs the listeners of `exit`, which stop the target.
process.on('uncaughtException', async (error) => {
  const report = await import('./failure.js').catch(() => undefined);
  if (report !== undefined) process.exit(report.reportFailure(error));
  process.stderr.write(`plugpull: ${`${error?.message ?? error}`.replace(/[^ -~]+/g, ' ')}\n`);
  process.exit(4);
});

const { requireOpenFiles, reportFailure } = await import('./failure.js');
requireOpenFiles();
const { Command, CommanderError, Option } = await import('commander');
const { EXIT_CODES } = await import('../../conformance/exit-codes.js');
const { protocolNames } = await import('../../conformance/target-file/starter.js');
const { commandLine, kitCommand } = await import('../host/command-line.js');
const { exitAfterOutput, ignoreFailedStreams, log, writeLines } = await import('../host/console.js');
const { allowPassingThrough } = await import('../host/directories.js');
const { kitVersion } = await import('../host/version.js');
const { collectReporters, parseBudget, parseCount, parseFilesystem, parseIndex, parseNames, parseSeed } =
  await import('./flags.js');
const { watchInterrupts } = await import('./interrupt.js');

// Each command is imported when it runs, because importing all of them takes half a second.

/**
 * Default budget of a gate: enough for every fault that the default target claims, and for 20 power cuts.
 */
const GATE_BUDGET = '90s';
const CERTIFY_BUDGET = '5m';
const DEFAULT_BUDGET = '60s';

const TARGET_HELP = 'target file (JSON); default: that of the reference implementation synchronous';
const TARGET_FILE_HELP = 'target file (JSON)';
const RANDOM_SEED_HELP = 'default: a random seed, which the report names';
const POWER_HELP = 'backend of power cuts: blocklog or flakey; default: the better one that this machine has';
const FILESYSTEM_HELP =
  'ext4 or xfs, with mount options after a colon, such as ext4:commit=1,data=journal; default: ext4';
const REPORTER_HELP =
  'form of the report: list, json, junit, tap, github, html or perfetto, with a file after a colon; ' +
  'several with commas between, such as list,junit:report.xml; default: list';
const JSON_HELP = 'prints the result as one JSON object to stdout';

ignoreFailedStreams();
allowPassingThrough();

const program = new Command(kitCommand())
  .description('Pulls the plug on message queues and proves that no confirmed message is lost.')
  .version(kitVersion())
  .enablePositionalOptions()
  .configureOutput({
    writeErr: (text) => writeLines(process.stderr, text),
    writeOut: (text) => writeLines(process.stdout, text),
  })
  .exitOverride();

program
  .command('gate')
  .description('injects faults until the budget is used or a requirement is violated; the check to run in CI')
  .argument('[target]', TARGET_HELP)
  .addOption(runtimeOption())
  .option(
    '--profile <name>',
    'containers: services in containers, power cuts by dm-flakey of this kernel or of the lab VM, ' +
      'which is built and started when it is needed; replaces --runtime, and chooses --power unless you give it',
  )
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
  .action(async (target: string | undefined, flags: GateFlags, command: CommandType) => {
    requireOneOf(command, 'profile', 'runtime');
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
  .description(
    'evaluates the evidence of a certificate again and checks its signature; exit code 1 when anything was changed, ' +
      'contradicts itself, or was not signed as asked',
  )
  .argument('<certificate>', 'the file certificate.json, beside its folder evidence')
  .option(
    '--signature <file>',
    'signature of the certificate: a Sigstore bundle (cosign sign-blob, actions/attest) or, with --key, also a bare signature',
  )
  .option('--key <file>', 'public key that must have signed, PEM, such as cosign.pub; needs no network')
  .option(
    '--identity <id>',
    'identity that must have signed: a mail address, or a workflow such as ' +
      'https://github.com/OWNER/REPO/.github/workflows/FILE.yml@refs/heads/main',
  )
  .option(
    '--issuer <url>',
    'issuer of the identity; default: that of GitHub Actions for a workflow on github.com',
  )
  .option(
    '--trusted-root <file>',
    'trusted root of Sigstore, such as `gh attestation trusted-root` prints; default: fetched from Sigstore',
  )
  .option('--json', JSON_HELP)
  .action(async (certificate: string, flags: VerifyFlags) => {
    const { verifyCommand } = await import('./verify-command.js');
    process.exitCode = await verifyCommand(certificate, flags);
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
    '--trust',
    'runs the commands in a bundle that was not made on this machine by this user, after it has printed them',
  )
  .option(
    '--runtime <name>',
    'where the services run: process, docker or vm; default: where they ran when the violation was found',
  )
  .option('--runs <n>', 'number of runs of the round; a crash state needs only one', parseCount, 5)
  .addOption(
    budgetOption(
      'upper bound of all runs, with those of --shrink; only the drain of the last run may take longer',
      DEFAULT_BUDGET,
    ),
  )
  .option(
    '--shrink',
    'looks for a smaller schedule or crash state that shows the violation too, and writes it as a bundle',
  )
  .option(
    '--shell',
    `mounts the disk of the failure until ${commandLine('clean')}, and prints how to start the recovery by hand`,
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
  .command('report')
  .description('writes one HTML file that shows a run: verdict, causes, timeline, files; runs nothing')
  .argument(
    '<evidence>',
    'directory of evidence, bundle (.tar.gz), certificate, or file with the output of --json (also gzipped)',
  )
  .option(
    '--out <file>',
    'file to write; default: report.html in the directory of the evidence, or in the current directory',
  )
  .option(
    '--trace <file>',
    'writes a trace for ui.perfetto.dev or chrome://tracing; then writes HTML only with --out',
  )
  .option('--force', 'replaces a file that is not a report of plugpull')
  .option('--json', JSON_HELP)
  .action(async (evidence: string, flags: ReportFlags) => {
    const { reportCommand } = await import('./report-command.js');
    process.exitCode = await reportCommand(evidence, flags);
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
  .description(
    'writes a target file, the skeleton of a durable queue, and a file for a CI system; on a terminal it asks for missing flags',
  )
  .option('--name <name>', 'name of the queue, used in reports and for the target file; default: my-queue')
  .option('--protocol <name>', `protocol of the queue: ${protocolNames().join(', ')}; default: http`)
  .option(
    '--language <name>',
    'language of the skeleton: python, javascript, go, rust, c; none: no skeleton; default: python for http; other protocols have no skeletons',
  )
  .option(
    '--services <form>',
    'one, or several (a front that accepts messages and a store that keeps them); default: one',
  )
  .option('--ci <system>', 'github, gitlab, jenkins or none; default: github')
  .option(
    '--out <dir>',
    'folder of the target file and the skeleton; the CI file goes to the root of its git repository; default: the current folder',
  )
  .option('--force', 'replaces files that exist')
  .action(async (flags: InitFlags) => {
    const { initCommand } = await import('./init-command.js');
    process.exitCode = await initCommand(flags);
  });

program
  .command('check')
  .description(
    'checks a target file, and lists what this machine can measure of it; starts no program of the target; exit code 3 ' +
      'when it cannot measure a claimed requirement',
  )
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
  .description(
    'records one run and tests the disks that a power cut could have left (crash states); of a cluster, those of all nodes',
  )
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
    'explores the recording that --out of an earlier exploration kept; records no new run (not for targets with nodes)',
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
  .command('setup')
  .description(
    'installs what faults and runtimes need on this machine, as root on Debian or Ubuntu; otherwise, and with ' +
      'PLUGPULL_NO_INSTALL=1, it only says what is missing',
  )
  .addOption(
    new Option(
      '--engines <scope>',
      'gate: what the gate of the reference queue needs; all: every fault and runtime',
    )
      .choices(['gate', 'all'])
      .default('all'),
  )
  .action(async (flags: { engines: string }) => {
    const { setupCommand } = await import('./setup-command.js');
    process.exitCode = await setupCommand(flags);
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
  .option(
    '--all',
    'also removes what dead runs of this user with other state directories left on this machine',
  )
  .option('--evidence', 'also removes the evidence of failed runs in the state directory')
  .option('--json', JSON_HELP)
  .action(async (flags: { json?: boolean; evidence?: boolean; all?: boolean }) => {
    const { cleanCommand } = await import('./clean-command.js');
    process.exitCode = await cleanCommand(flags);
  });

program
  .command('image')
  .description(
    'builds a container image of the kit with all engines, without a registry if none answers, and prints its name; ' +
      'the image runs the commands of the kit on the folder that is mounted at /work',
  )
  .option('--json', JSON_HELP)
  .action(async (flags: { json?: boolean }) => {
    const { imageCommand } = await import('./image-command.js');
    process.exitCode = await imageCommand(flags);
  });

const lab = program
  .command('lab')
  .description(
    'manages the lab VM, a virtual machine with its own kernel, device mapper and container engine',
  );
for (const [name, description, commandName] of [
  ['up', 'builds the image of the VM when there is none, and starts the VM', 'labUpCommand'],
  ['down', 'stops the VM and keeps its built images', 'labDownCommand'],
  [
    'status',
    'prints the state of the VM, its addresses and its image; exit code 3 when it is not up',
    'labStatusCommand',
  ],
] as const) {
  const command = lab.command(name).description(description).option('--json', JSON_HELP);
  if (name === 'down')
    command.option('--remove', 'also removes the built images of this user, for all checkouts');
  command.action(async (flags: { json?: boolean; remove?: boolean }) => {
    const { [commandName]: action } = await import('./lab-command.js');
    process.exitCode = await action(flags);
  });
}

program
  .command('planted')
  .description('plants known bugs in copies of the reference implementations and hunts them')
  .argument('[ids...]', 'ids of the bugs; default: all')
  .addOption(
    new Option(
      '--modes <a,b>',
      'modes of the hunt: gate, simulate, explore, flakey (a gate with power cuts by dm-flakey)',
    )
      .argParser(parseNames)
      .default(['gate', 'simulate', 'explore'], 'gate,simulate,explore'),
  )
  .option('--implementation <name>', 'hunts only the bugs of this reference implementation; default: of all')
  .option('--every-mode', 'goes on with the other modes after one has found the bug')
  .option('--jobs <n>', 'number of hunts at a time; default: 2, or 1 on one processor', parseCount)
  .option(
    '--original <n>',
    'runs this many gates on an implementation without a bug instead; none of them may fail',
    parseCount,
  )
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
  .argument(
    '[names...]',
    'names of the systems; default: all, without the runs that are only for named systems',
  )
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
    'runs a command of a reference implementation, such as install, inspect or verify; alone it lists the implementations',
  )
  .argument('[implementation]')
  .argument('[command...]')
  .helpOption(false)
  .allowUnknownOption()
  .passThroughOptions()
  .action(async (implementation: string | undefined, args: string[]) => {
    const { queueCommand } = await import('./queue-command.js');
    process.exitCode = await queueCommand(implementation, args);
  });

/** Commands that leave evidence of failed runs in the state directory. */
const COMMANDS_WITH_EVIDENCE = new Set([
  'gate',
  'certify',
  'explore',
  'sweep',
  'replay',
  'planted',
  'systems',
]);

program.hook('preAction', async () => {
  // A wrong PLUGPULL_LIMITS is reported before anything runs, and not as an error of the first file that is read.
  const { limit } = await import('../../conformance/limits.js');
  limit('kept-runs');
});

program.hook('postAction', async (_program, command) => {
  if (!COMMANDS_WITH_EVIDENCE.has(command.name())) return;
  const { attempt } = await import('../host/attempt.js');
  // The verdict is known, and nothing here may change the exit code.
  await attempt('old evidence was not removed', async () => {
    const { removeOldEvidence } = await import('../clean/evidence.js');
    const line = removeOldEvidence();
    if (line !== undefined) log(line);
  });
});

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError)
    process.exitCode = error.exitCode === 0 ? EXIT_CODES.pass : EXIT_CODES.usage;
  // Exit explicitly: the failed command may have left an open handle that would keep this process alive.
  else await exitAfterOutput(reportFailure(error));
}

function runtimeOption(
  description = 'where the services of the target run: process, docker or vm',
): CommandOption {
  return new Option('--runtime <name>', description).default('process', 'process');
}

/** Fails when the user has given both of two options. A default does not count. */
function requireOneOf(command: CommandType, first: string, second: string): void {
  if ([first, second].some((name) => command.getOptionValueSource(name) !== 'cli')) return;
  command.error(
    `error: --${first} ${command.getOptionValue(first)} chooses the --${second} itself: leave out --${second} ${command.getOptionValue(second)}`,
  );
}

/**
 * Makes the option `--budget`.
 * @param defaultTime the default; the help shows it as it is written here.
 */
function budgetOption(description: string, defaultTime?: string): CommandOption {
  const option = new Option('--budget <time>', description).argParser(parseBudget);
  return defaultTime === undefined ? option : option.default(parseBudget(defaultTime), defaultTime);
}

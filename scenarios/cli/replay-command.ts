import { existsSync, readdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { KitError, messageOf } from '../../conformance/errors.js';
import { EXIT_CODES, VERDICT_EXIT_CODES } from '../../conformance/exit-codes.js';
import { readHistory } from '../../conformance/history/reader.js';
import { loadTarget } from '../../conformance/target-file/load.js';
import { DEFAULT_FILESYSTEM, type Filesystem } from '../../faults/power/filesystem.js';
import { type Bundle, openBundle } from '../bundle/bundle.js';
import { describeForeignCommands, foreignCommandsOf } from '../bundle/foreign-commands.js';
import type { CrashStateCase } from '../bundle/manifest.js';
import { resolveTarget } from '../bundle/target.js';
import { StateWorkspace } from '../explore/states/workspace.js';
import { ownersOf } from '../explore/states/write-owners.js';
import { commandLine, pathFromHere } from '../host/command-line.js';
import { log, printJson } from '../host/console.js';
import { fixItLink } from '../host/fix-it.js';
import { whyNotMadeHere } from '../host/made-here.js';
import { newRunId, Registry, stateDirectory } from '../host/registry.js';
import { shellQuote } from '../host/shell.js';
import {
  type BundleDisk,
  describeLogPosition,
  entriesNamedAt,
  openBundleDisk,
} from '../replay/bundle-disk.js';
import { describeRecorded, describeResult, describeStart } from '../replay/describe-replay.js';
import {
  describeManualStart,
  mountState,
  openRecordedDisk,
  type RecordedDisk,
  stateBefore,
} from '../replay/mounted-disk.js';
import {
  createWorkspaceDir,
  keepLogs,
  removeWorkspaceDir,
  replayGate,
  scheduleIn,
} from '../replay/replay.js';
import { replayCluster } from '../replay/replay-cluster.js';
import { replayState } from '../replay/replay-state.js';
import { describeSchedule } from '../replay/shrink-schedule.js';
import { reportResult } from '../report/reporters/registry.js';
import { styleFor } from '../report/style.js';
import { scratchDirOf } from '../round/launch.js';
import { formatFilesystem, unlessInterrupted } from './common.js';
import { requireNoHungDisk } from './hung-disks.js';
import type { Interrupts } from './interrupt.js';

export interface ReplayFlags {
  target?: string;
  trust?: boolean;
  runtime?: string;
  runs: number;
  budget: number;
  shrink?: boolean;
  shell?: boolean;
  at?: number;
  json?: boolean;
}

/** Replays a bundle and reports the result. Resolves to the exit code. */
export async function replayCommand(
  file: string,
  flags: ReplayFlags,
  interrupts: Interrupts,
): Promise<number> {
  await requireNoHungDisk();
  const registry = new Registry(newRunId());
  const workspaceDir = createWorkspaceDir(registry, stateDirectory());
  let keepWorkspace = false;
  try {
    const bundle = await openBundle(resolve(file), join(workspaceDir, 'bundle'));
    requireOneDisk(bundle, flags);
    for (const line of describeRecorded(bundle.manifest)) log(line);
    const foreign = flags.target === undefined ? whyNotMadeHere(bundle.sha256) : undefined;
    if (foreign !== undefined) {
      const found = foreignCommandsOf(bundle.manifest);
      log(describeCase(bundle.manifest.case));
      for (const line of describeForeignCommands(found)) log(line);
      if (flags.trust !== true) {
        if (flags.at === undefined || flags.shell === true) {
          if (flags.json) printJson({ bundle: bundle.file, madeHere: false, trusted: false, ...found });
          throw new KitError(
            'bad-bundle',
            `${file}: ${foreign}, so nothing was run: expected --trust to run the commands above, or --target FILE with a target of your own`,
          );
        }
        // The log and the history can be read without running or mounting anything.
        for (const line of await openDisk(bundle, flags, workspaceDir, registry, false, false)) log(line);
        return EXIT_CODES.pass;
      }
    }
    const target = resolveTarget(bundle.manifest, flags.target);
    if (flags.shell === true || flags.at !== undefined) {
      keepWorkspace = flags.shell === true;
      for (const line of await openDisk(bundle, flags, workspaceDir, registry, keepWorkspace, true))
        log(line);
      if (keepWorkspace)
        for (const line of await describeManualStart(
          target,
          dataDirectoryOf(bundle, workspaceDir),
          scratchDirOf(bundle.dir),
        ))
          log(line);
      if (keepWorkspace) log(`remove it with: ${commandLine('clean')}`);
      return EXIT_CODES.pass;
    }
    const style = styleFor(process.stderr);
    const common = {
      target,
      budgetMs: flags.budget,
      shrink: flags.shrink === true,
      registry,
      signal: interrupts.signal,
      progress: (line: string) => log(style.faint(line)),
    };
    for (const line of describeStart(bundle.manifest, flags.runs)) log(line);
    const { case: failedCase } = bundle.manifest;
    const ofState = (stateCase: Pick<CrashStateCase, 'filesystem'>) => ({
      ...{ ...common, dir: workspaceDir },
      recordAnew: exploreCommandLine(bundle, stateCase, flags),
    });
    const replayed =
      failedCase.kind === 'crash-state'
        ? replayState(bundle, failedCase, ofState(failedCase))
        : failedCase.kind === 'cluster-state'
          ? replayCluster(bundle, failedCase, ofState(failedCase))
          : replayGate(bundle, failedCase, {
              ...common,
              runtime: parseRuntime(flags.runtime ?? failedCase.runtime),
              runs: flags.runs,
            });
    const outcome = await unlessInterrupted(interrupts, replayed);
    if ('exitCode' in outcome) return outcome.exitCode;
    const { result } = outcome;
    const data =
      result.verdict === 'fail'
        ? { ...result, fixIt: result.requirements.map((id) => fixItLink(id)) }
        : result;
    reportResult(() => describeResult(result), flags.json ? data : undefined);
    return VERDICT_EXIT_CODES[result.verdict];
  } catch (error) {
    keepWorkspace ||= !interrupts.signal.aborted && keepLogs(workspaceDir);
    throw error;
  } finally {
    // A workspace with a mounted disk stays in the registry, so that `clean` can remove it.
    if (keepWorkspace) registry.leave();
    else {
      removeWorkspaceDir(registry, workspaceDir);
      registry.close();
    }
  }
}

/**
 * Rejects the flags that look at one disk for a bundle of a cluster.
 * @throws KitError bad-usage.
 */
function requireOneDisk({ manifest }: Bundle, { shell, at }: ReplayFlags): void {
  if (manifest.case.kind !== 'cluster-state' || (shell !== true && at === undefined)) return;
  const flag = at === undefined ? '--shell' : `--at ${at}`;
  throw new KitError(
    'bad-usage',
    `${flag}: there is no form for the disks of a cluster yet, expected a replay without it`,
  );
}

/** Describes what a replay of this case would make again. */
function describeCase(failedCase: Bundle['manifest']['case']): string {
  return failedCase.kind === 'gate'
    ? `schedule: ${describeSchedule(scheduleIn(failedCase))}`
    : `crash state: ${failedCase.state}`;
}

function parseRuntime(name: string): 'process' | 'docker' | 'vm' {
  if (name === 'process' || name === 'docker' || name === 'vm') return name;
  throw new KitError('bad-usage', `--runtime ${name}: expected process, docker or vm`);
}

/** Returns the command line that records a new run with the seed and the filesystem of an exploration's bundle. */
function exploreCommandLine(
  { manifest: { seed, target } }: Bundle,
  { filesystem }: Pick<CrashStateCase, 'filesystem'>,
  flags: ReplayFlags,
): string {
  const args = ['explore'];
  if (flags.target !== undefined) args.push(flags.target);
  else if (!target.builtin) args.push(pathFromHere(targetFileOf(target)));
  args.push('--seed', `${seed}`);
  if (formatFilesystem(filesystem) !== formatFilesystem(DEFAULT_FILESYSTEM))
    args.push('--fs', formatFilesystem(filesystem));
  return commandLine(...args);
}

/** Looks for the target file in the folder that the bundle names; a placeholder when it is not there. */
function targetFileOf({ dir, definition }: Bundle['manifest']['target']): string {
  const files = existsSync(dir) ? readdirSync(dir).filter((name) => name.endsWith('.json')) : [];
  const file = files.map((name) => join(dir, name)).find((path) => nameOfTarget(path) === definition.name);
  return file ?? 'TARGET.json';
}

function nameOfTarget(file: string): string | undefined {
  try {
    return loadTarget(file).name;
  } catch {
    // Another JSON file, or a target file that is being edited.
    return undefined;
  }
}

/**
 * Returns the directory of the target's data that a bundle contains: on the mounted disk, or as plain
 * files.
 */
function dataDirectoryOf({ dir, manifest }: Bundle, workspaceDir: string): string {
  const mounted = join(workspaceDir, 'disk', 'data');
  if (existsSync(mounted) || manifest.case.kind !== 'gate') return mounted;
  return join(dir, `round-${manifest.case.round}`, 'data-at-end');
}

/**
 * Opens the recorded disk of a bundle and returns lines that describe it. Mounts the disk when
 * `keepMounted` is set.
 * @param mayMount false for the disk of a stranger: a filesystem of the kernel is not made for hostile images.
 * @throws KitError bad-usage when `--at` is set and the bundle has no recorded disk.
 */
async function openDisk(
  bundle: Bundle,
  { at }: ReplayFlags,
  workspaceDir: string,
  registry: Registry,
  keepMounted: boolean,
  mayMount: boolean,
): Promise<string[]> {
  const { case: failedCase } = bundle.manifest;
  const rebuilt =
    failedCase.kind === 'crash-state' ? openBundleDisk(bundle, failedCase, workspaceDir) : undefined;
  const disk = rebuilt?.disk ?? openRecordedDisk(bundle.dir);
  if (disk === undefined) {
    if (at !== undefined) {
      throw new KitError(
        'bad-usage',
        `--at ${at}: this bundle has no recorded disk, expected one of a power cut`,
      );
    }
    return [`the target's data at the end of the failed run: ${dataDirectoryOf(bundle, workspaceDir)}`];
  }
  try {
    return describeDisk(bundle, at, workspaceDir, registry, keepMounted, mayMount, disk, rebuilt);
  } finally {
    disk.recording.close();
  }
}

/**
 * Returns lines that describe a recorded disk, with `at` also the entries of its log around that position.
 * Mounts the disk only when `keepMounted` is set, and then leaves it mounted.
 */
function describeDisk(
  { dir, manifest: { case: failedCase } }: Bundle,
  at: number | undefined,
  workspaceDir: string,
  registry: Registry,
  keepMounted: boolean,
  mayMount: boolean,
  disk: RecordedDisk,
  rebuilt: BundleDisk | undefined,
): string[] {
  const { model } = disk.recording;
  const count = model.entries.length;
  const ofRecovery = rebuilt?.outer !== undefined;
  const lines = [`the log${ofRecovery ? ' of the recovery' : ''} has ${count} entries`];
  let state = stateBefore(disk, at ?? count);
  let stateLabel = `before entry ${at ?? count}`;
  if (at !== undefined) {
    const hasHistory = failedCase.kind === 'crash-state' && !ofRecovery;
    const events = hasHistory ? readHistory(join(dir, 'history.jsonl')) : [];
    const owners = mayMount
      ? tryOwnersOf(disk, failedCase.filesystem, entriesNamedAt(model, at), workspaceDir, registry)
      : undefined;
    lines.push(...describeLogPosition(model, at, events, owners));
    const needs = mayMount ? 'needs root' : 'that was not made here needs --trust';
    if (owners === undefined) lines.push(`the files of these writes are not named: mounting a disk ${needs}`);
  } else if (rebuilt !== undefined && failedCase.kind === 'crash-state') {
    state = rebuilt.state;
    stateLabel = `in crash state ${failedCase.state}`;
  }
  if (!keepMounted) return lines;
  const mountPoint = mountState(disk, state, failedCase.filesystem, workspaceDir, registry);
  return [...lines, `the disk ${stateLabel} is mounted on ${shellQuote(mountPoint)}`];
}

/**
 * Finds the files to which writes of a recorded disk belong; undefined when the disk cannot be mounted here, as without
 * root.
 */
function tryOwnersOf(
  { image, recording }: RecordedDisk,
  filesystem: Filesystem,
  entries: readonly number[],
  workspaceDir: string,
  registry: Registry,
): ReadonlyMap<number, string> | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const workspace = new StateWorkspace(join(workspaceDir, 'owners'), registry);
  try {
    return ownersOf({ recording, base: image, baseAt: 0, filesystem }, entries, workspace);
  } catch (error) {
    log(`the files of these writes cannot be named: ${messageOf(error)}`);
    return new Map();
  } finally {
    workspace.remove();
  }
}

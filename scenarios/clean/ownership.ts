import { lstatSync, readlinkSync, realpathSync } from 'node:fs';
import { basename, dirname, join, normalize, relative, sep } from 'node:path';
import { isMarkOf, isRunId } from '../host/dead-runs.js';
import { isOutDirectoryOf } from '../host/out-directory.js';
import { environmentOf, openFilesOf, processEntry, readLinkOf } from '../host/processes.js';
import type { RegisteredRun, Resource } from '../host/registry.js';
import { engineAddress } from '../runtime/docker/engine.js';
import { NETWORK_DIRECTORY } from '../runtime/nodes/namespaces.js';
import { RUN_VARIABLE } from '../runtime/runtime.js';

/** Folders of a state directory in which each run has one of its own, with its id as the name. */
const FOLDERS_OF_RUNS: ReadonlySet<string> = new Set([
  'runs',
  'replays',
  'certificates',
  'planted',
  'lab/vm',
]);
/**
 * Ends of the paths that a run registers below `--out`, in the directory of a round or of the run itself: the target's data, the
 * disk, the disk of a recovery, the image of a disk behind dm-flakey, and the directory of a boot.
 */
const MADE_IN_OUT =
  /\/(data|disk|recovery-\d+|flakey(\/disk\.img)?|boot-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})$/;

/** The parts of a run by which its resources are recognised. */
export type RunIdentity = Pick<RegisteredRun, 'runId' | 'stateDir' | 'outDir' | 'sinceTicks' | 'resources'>;

/**
 * Returns why a registered resource is not certainly one that the run has made; undefined when it is. The target
 * runs as the same user as the kit, so that a line of the list may be the target's: whatever stands there,
 * `clean` touches nothing outside the places where the kit makes things.
 */
export function whyNotOurs(resource: Resource, run: RunIdentity): string | undefined {
  switch (resource.kind) {
    case 'process':
      return whyNotOurProcess(resource, run);
    case 'containers':
      return whyNotOurEngine(resource.engine);
    case 'mapping':
      return isRunId(run.runId) &&
        dirname(resource.path) === '/dev/mapper' &&
        basename(resource.path).startsWith(`plugpull-${run.runId}-`)
        ? undefined
        : `expected /dev/mapper/plugpull-${run.runId}-…`;
    case 'network':
      return NETWORK_DIRECTORY.test(basename(resource.path)) && isRunId(run.runId)
        ? whyNotOurPath(resource.path, run)
        : `expected a directory plugpull-${run.runId}-net-…`;
    case 'directory':
    case 'mount':
    case 'loop':
      return whyNotOurPath(resource.path, run);
  }
}

/** Returns why a path is not one that the run has made. */
function whyNotOurPath(path: string, run: RunIdentity): string | undefined {
  if (path !== normalize(path) || path.endsWith(sep)) return 'expected a path without . and ..';
  const base = baseOf(path, run);
  if (base === undefined) {
    const out = run.outDir === undefined ? '' : `, below ${run.outDir} with its mark`;
    return `it is not in a folder of the run in ${run.stateDir}${out}, and has no folder plugpull-${run.runId}…`;
  }
  if (base === run.outDir && !MADE_IN_OUT.test(path)) return `the kit makes nothing of this name in ${base}`;
  return whyLinkOnTheWay(base, path);
}

/** Returns the directory below which the run may have made a path. */
function baseOf(path: string, { runId, stateDir, outDir }: RunIdentity): string | undefined {
  if (isBelow(path, stateDir) && isInFolderOfRun(relative(stateDir, path), runId)) return stateDir;
  if (!isRunId(runId)) return undefined;
  const names = path.split(sep);
  const own = names.findIndex(
    (name) => name === `plugpull-${runId}` || name.startsWith(`plugpull-${runId}-`),
  );
  if (own !== -1) return names.slice(0, own).join(sep) || sep;
  return outDir !== undefined && isBelow(path, outDir) && isOutDirectoryOf(outDir, runId)
    ? outDir
    : undefined;
}

/** Reports whether a path, relative to the state directory, is in a folder of the run alone. */
function isInFolderOfRun(path: string, runId: string): boolean {
  const names = path.split(sep);
  const depth = names[0] === 'lab' ? 2 : 1;
  const [folder, own = ''] = [names.slice(0, depth).join('/'), names[depth]];
  return FOLDERS_OF_RUNS.has(folder) && own === runId && isRunId(runId);
}

function isBelow(path: string, directory: string): boolean {
  return directory !== '' && directory !== sep && path.startsWith(`${directory}${sep}`);
}

/** Returns why a path leads somewhere else: a target could replace a directory above it by a link. */
function whyLinkOnTheWay(base: string, path: string): string | undefined {
  const names = relative(base, dirname(path)).split(sep).filter(Boolean);
  let place = base;
  for (const name of names) {
    place = join(place, name);
    try {
      if (lstatSync(place).isSymbolicLink()) return `${place} is a link to ${readlinkSync(place)}`;
    } catch {
      // It does not exist, so there is nothing to remove.
      return undefined;
    }
  }
  return undefined;
}

/** Returns why a live process is not one of the run: its number and start time alone could be anybody's. */
function whyNotOurProcess(
  { pid, startTicks }: { pid: number; startTicks: number },
  run: RunIdentity,
): string | undefined {
  if (startTicks < run.sinceTicks) return 'it was started before the run';
  const entry = processEntry(pid);
  if (entry?.startTicks !== startTicks || entry.state === 'Z' || isEnding(pid)) return undefined;
  const marker = environmentOf(pid, RUN_VARIABLE);
  if (isMarkOf(marker, run.runId)) return undefined;
  if (pathsOf(pid).some((path) => baseOf(path.replace(/ \(deleted\)$/, ''), run) !== undefined))
    return undefined;
  return `neither its environment nor its files show that the run has started it`;
}

/** Reports whether a process is about to end: the kernel has taken its directory and files away already. */
function isEnding(pid: number): boolean {
  try {
    readlinkSync(`/proc/${pid}/cwd`);
    return false;
  } catch (error) {
    return error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ESRCH');
  }
}

/** Lists the working directory and the open files of a process. */
function pathsOf(pid: number): string[] {
  return [readLinkOf(`/proc/${pid}/cwd`) ?? [], openFilesOf(pid)].flat();
}

/** Returns why the containers of an engine are not removed: a line must not make the kit call a stranger's host. */
function whyNotOurEngine(engine: string): string | undefined {
  if (engine === engineAddress() || engine.startsWith('tcp://127.0.0.1:')) return undefined;
  const socket = /^unix:\/\/(\/.+)$/.exec(engine)?.[1];
  if (socket === undefined) return `expected a socket of this machine, or the engine of DOCKER_HOST`;
  try {
    const { uid } = lstatSync(realpathSync(socket));
    const own = process.geteuid?.();
    return uid === 0 || uid === own ? undefined : `the socket belongs to user ${uid}`;
  } catch {
    // No engine is there. The removal reports it.
    return undefined;
  }
}

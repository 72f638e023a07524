import { lstatSync, rmSync } from 'node:fs';
import { basename } from 'node:path';
import { messageOf } from '../../conformance/errors.js';
import { removeTree, unmountForeign } from '../../faults/files/remove-tree.js';
import { dropFilesystem } from '../../faults/power/filesystem.js';
import { removeMapping } from '../../faults/power/flakey-local.js';
import { detachLoops } from '../../faults/power/loop.js';
import { removeFaketimeFiles } from '../../faults/process/clock.js';
import { until } from '../../faults/waiting.js';
import { allProcesses, environmentOf, processEntry, sendSignal } from '../host/processes.js';
import {
  type RefusedFile,
  type RegisteredRun,
  type Resource,
  refusedFiles,
  registeredRuns,
  stateDirectory,
} from '../host/registry.js';
import { removeSharedMemory } from '../host/shared-memory.js';
import { killStrays, type StrayCriteria } from '../host/strays.js';
import { connectEngine, engineAvailability, removeRunResources } from '../runtime/docker/engine.js';
import { RUN_VARIABLE } from '../runtime/runtime.js';
import { whyNotOurs } from './ownership.js';

/** Result of `clean`, for people and for `--json`. */
export interface CleanResult {
  runs: {
    runId: string;
    containers: number;
    processes: number;
    mounts: number;
    loops: number;
    mappings: number;
    directories: number;
    /** Resources that could not be removed, with the reasons. */
    problems: string[];
    /** Registered resources that the run has not certainly made, with the reasons. They are left as they are. */
    notRemoved: string[];
  }[];
  /** Files that look like lists of resources and are not believed, with the reasons. */
  refused: RefusedFile[];
  /** Ids of the runs whose kit is still alive: they are left alone. */
  inUse: string[];
}

const KILL_TIMEOUT_MS = 5000;

/**
 * Removes what killed runs left behind, and nothing else: a run whose kit is still alive keeps all its
 * resources.
 */
export async function clean(stateDir = stateDirectory()): Promise<CleanResult> {
  const cleaned: CleanResult = { runs: [], inUse: [], refused: refusedFiles(stateDir) };
  const seen = new Set<string>();
  // List the runs again after each one: a dead run may have started other kits, which die when it is cleaned.
  const next = () => registeredRuns(stateDir).find(({ alive, runId }) => !alive && !seen.has(runId));
  for (let listed = next(); listed !== undefined; listed = next()) {
    seen.add(listed.runId);
    const problems: string[] = [];
    const { run, notRemoved } = withOwnResources(listed);
    // Remove containers before processes: only the engine can kill a process in a paused container.
    const containers = await removeContainers(run, problems);
    const processes = run.sameBoot ? await killProcesses(run, problems) : 0;
    const pids = run.resources.flatMap((resource) => (resource.kind === 'process' ? [resource.pid] : []));
    for (const pid of pids) removeFaketimeFiles(pid);
    if (run.sameBoot) removeSharedMemory(new Set(pids));
    const counts = removeResources(run, problems);
    if (problems.length === 0 && notRemoved.length === 0) rmSync(run.file, { force: true });
    cleaned.runs.push({ runId: run.runId, containers, processes, ...counts, problems, notRemoved });
  }
  cleaned.inUse = registeredRuns(stateDir).flatMap(({ alive, runId }) => (alive ? [runId] : []));
  return cleaned;
}

/** Leaves out the resources that the run has not certainly made; see `whyNotOurs`. */
function withOwnResources(listed: RegisteredRun): { run: RegisteredRun; notRemoved: string[] } {
  const notRemoved: string[] = [];
  const resources = listed.resources.filter((resource) => {
    const why = whyNotOurs(resource, listed);
    if (why !== undefined && mayExist(resource)) notRemoved.push(`${describe(resource)} because ${why}`);
    return why === undefined;
  });
  return { run: { ...listed, resources }, notRemoved };
}

/** Reports whether something may be left of a resource. */
function mayExist(resource: Resource): boolean {
  if (resource.kind === 'process') return processEntry(resource.pid)?.startTicks === resource.startTicks;
  return resource.kind === 'containers' || pathExists(resource.path);
}

/** Reports whether a path exists. A dead FUSE mount exists, although it cannot be looked at. */
function pathExists(path: string): boolean {
  try {
    return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
  } catch {
    return true;
  }
}

function describe(resource: Resource): string {
  if (resource.kind === 'process') return `process ${resource.pid}`;
  if (resource.kind === 'containers') return `containers on ${resource.engine}`;
  return `${resource.kind} ${resource.path}`;
}

/**
 * Removes what a run has left on container engines. Containers and networks survive a reboot. @returns the
 * number of removed objects.
 */
async function removeContainers({ runId, resources }: RegisteredRun, problems: string[]): Promise<number> {
  let removed = 0;
  for (const resource of resources) {
    if (resource.kind !== 'containers') continue;
    try {
      // An engine on a port of loopback is that of a lab VM: when the engine has gone, its containers have
      // gone too.
      const ofVm = resource.engine.startsWith('tcp://127.0.0.1:');
      if (ofVm && !(await engineAvailability(resource.engine)).available) continue;
      removed += await removeRunResources(await connectEngine(resource.engine), runId);
    } catch (error) {
      problems.push(`containers on ${resource.engine}: ${messageOf(error)}`);
    }
  }
  return removed;
}

/**
 * Returns the live processes of a run: those with its marker, and registered ones that are still the same
 * process.
 */
export function processesOf(runId: string, resources: readonly Resource[]): number[] {
  const pids = new Set<number>();
  for (const resource of resources) {
    if (resource.kind !== 'process') continue;
    const entry = processEntry(resource.pid);
    if (entry?.startTicks === resource.startTicks && entry.state !== 'Z') pids.add(resource.pid);
  }
  for (const { pid } of allProcesses()) {
    if (environmentOf(pid, RUN_VARIABLE) === runId) pids.add(pid);
  }
  return [...pids];
}

async function killProcesses(run: RegisteredRun, problems: string[]): Promise<number> {
  const seen = new Set<number>();
  const gone = await until(() => {
    const pids = processesOf(run.runId, run.resources);
    for (const pid of pids) {
      seen.add(pid);
      sendSignal(pid, 'SIGKILL');
    }
    const strays = killStrays(strayCriteriaOf(run));
    for (const pid of strays) seen.add(pid);
    return pids.length + strays.length === 0;
  }, KILL_TIMEOUT_MS);
  if (!gone) problems.push(`processes ${processesOf(run.runId, run.resources).join(', ')} cannot be killed`);
  return seen.size;
}

/**
 * Makes the criteria for daemons that only their use of a run's directories identifies. The evidence
 * directory does not count, because people read it.
 */
function strayCriteriaOf({ runId, resources, sinceTicks }: RegisteredRun): StrayCriteria {
  const dirs = resources.flatMap((resource) => {
    const { kind } = resource;
    if (kind !== 'mount' && kind !== 'directory') return [];
    return basename(resource.path) === runId ? [] : [resource.path];
  });
  return { dirs, ports: [], sinceTicks, daemonsOnly: true };
}

interface RemovedCounts {
  mounts: number;
  loops: number;
  mappings: number;
  directories: number;
}

/**
 * Removes resources in the order of the list, newest first: a resource is removed before the resource on
 * which it was made.
 */
function removeResources({ resources, sameBoot }: RegisteredRun, problems: string[]): RemovedCounts {
  const counts: RemovedCounts = { mounts: 0, loops: 0, mappings: 0, directories: 0 };
  for (const resource of resources) {
    if (resource.kind === 'process' || resource.kind === 'containers') continue;
    const { kind, path } = resource;
    try {
      // Mounts, mappings and loop devices of an earlier boot have ended with its kernel.
      if (kind === 'directory' && removeDirectory(path)) counts.directories++;
      if (kind === 'mount' && sameBoot) {
        // What a target has mounted on a disk of the kit keeps that disk in use.
        unmountForeign(path, 1, 'all');
        if (dropFilesystem(path)) counts.mounts++;
      }
      if (kind === 'mapping' && sameBoot && removeMapping(path)) counts.mappings++;
      if (kind === 'loop' && sameBoot && detachLoops(path)) counts.loops++;
    } catch (error) {
      problems.push(`${kind} ${path}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  return counts;
}

/** Removes a directory with everything in it. @throws RemovalError when something in it cannot be removed. */
export function removeDirectory(path: string): boolean {
  return pathExists(path) && removeTree(path, { unmount: 'all' });
}

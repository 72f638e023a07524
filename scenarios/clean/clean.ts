import { lstatSync, rmSync } from 'node:fs';
import { basename } from 'node:path';
import { messageOf } from '../../conformance/errors.js';
import { removeTree, unmountForeign } from '../../faults/files/remove-tree.js';
import { dropFilesystem } from '../../faults/power/filesystem.js';
import { removeMapping } from '../../faults/power/flakey-local.js';
import { detachLoops } from '../../faults/power/loop.js';
import { abortFuse } from '../../faults/power/mounts.js';
import { removeFaketimeFiles } from '../../faults/process/clock.js';
import { until } from '../../faults/waiting.js';
import { isMarkOf, seesAllProcesses } from '../host/dead-runs.js';
import { HeldNamespaces } from '../host/held-namespaces.js';
import { unmarkOutDirectory } from '../host/out-directory.js';
import {
  allProcesses,
  environmentOf,
  mountNamespaceOf,
  processEntry,
  sendSignal,
} from '../host/processes.js';
import {
  allRegisteredRuns,
  type RefusedFile,
  type RegisteredRun,
  type Resource,
  refusedFiles,
  registeredRuns,
  rereadRun,
  stateDirectory,
} from '../host/registry.js';
import { removeSharedMemory } from '../host/shared-memory.js';
import { stopProcesses } from '../host/stop-processes.js';
import { killStrays, type StrayCriteria } from '../host/strays.js';
import {
  connectEngine,
  engineAddress,
  engineAvailability,
  labelledRuns,
  removeRunResources,
} from '../runtime/docker/engine.js';
import { processesInNetwork, removeNetwork } from '../runtime/nodes/namespaces.js';
import { RUN_VARIABLE } from '../runtime/runtime.js';
import { whyNotOurs } from './ownership.js';
import { unregisteredRuns } from './unregistered.js';

/** Result of `clean`, for people and for `--json`. */
export interface CleanResult {
  runs: CleanedRun[];
  /** Files that look like lists of resources and are not believed, with the reasons. */
  refused: RefusedFile[];
  /** Ids of the runs whose kit is still alive: they are left alone. */
  inUse: string[];
}

/** How many resources of one dead run were removed, by kind, and which were not removed. */
export interface CleanedRun {
  runId: string;
  containers: number;
  processes: number;
  mounts: number;
  loops: number;
  mappings: number;
  networks: number;
  directories: number;
  /** Resources that could not be removed, with the reasons. */
  problems: string[];
  /** Registered resources that the run has not certainly made, with the reasons. They are left as they are. */
  notRemoved: string[];
}

const KILL_TIMEOUT_MS = 5000;

/**
 * Removes what killed runs left behind, and nothing else: a run whose kit is still alive keeps all its
 * resources.
 * @param scope `all` also removes what this user's runs with another state directory have left, and what runs without a
 *   list have left. It leaves a run alone if this machine does not show that its kit is dead.
 */
export async function clean(
  stateDir = stateDirectory(),
  scope: 'this-directory' | 'all' = 'this-directory',
): Promise<CleanResult> {
  const cleaned: CleanResult = { runs: [], inUse: [], refused: refusedFiles(stateDir) };
  const seen = new Set<string>();
  const listed = () => (scope === 'all' ? allRegisteredRuns() : registeredRuns(stateDir));
  // List the runs again after each one: a dead run may have started other kits, which die when it is cleaned.
  const next = () => listed().find(({ alive, runId }) => !alive && !seen.has(runId));
  for (let run = next(); run !== undefined; run = next()) {
    seen.add(run.runId);
    cleaned.runs.push(await cleanRun(run, 'remove-evidence'));
  }
  if (scope === 'all') await cleanUnregistered(cleaned);
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
export function pathExists(path: string): boolean {
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

async function cleanUnregistered(cleaned: CleanResult): Promise<void> {
  const known = new Set(allRegisteredRuns().map(({ runId }) => runId));
  const engine = engineAddress();
  // On the engine of another machine nothing tells which kits are alive.
  const runIds =
    engine.startsWith('unix://') && seesAllProcesses() && (await engineAvailability(engine)).available
      ? await labelledRuns(await connectEngine(engine))
      : [];
  for (const run of unregisteredRuns(known, { engine, runIds }))
    cleaned.runs.push(await cleanRun(run, 'remove-evidence'));
}

/** Upper bound for the wait for the watchdog of a dead kit, in ms. */
const WATCHDOG_TIMEOUT_MS = 60_000;

/**
 * Removes what a run has left whose kit is dead.
 * @param evidence `keep-evidence`: the evidence and the registry of the run stay until the next `clean`. Only the
 *   watchdog of the kit passes this, and it does not wait for itself.
 */
export async function cleanRun(
  registered: RegisteredRun,
  evidence: 'keep-evidence' | 'remove-evidence',
): Promise<CleanedRun> {
  let listed = registered;
  if (evidence === 'remove-evidence' && listed.isWatched) {
    // Two processes that remove the same mounts and devices at once would report each other's work as problems.
    const again = () => rereadRun(registered) ?? { ...registered, resources: [], isWatched: false };
    await until(() => !again().isWatched, WATCHDOG_TIMEOUT_MS, undefined, 20);
    listed = again();
  }
  // Without a list, the resources were found on the machine, and nobody could name others.
  const { run, notRemoved } =
    listed.file === undefined ? { run: listed, notRemoved: [] } : withOwnResources(listed);
  const isEvidence = (resource: Resource) =>
    resource.kind === 'directory' && basename(resource.path) === run.runId;
  const kept = evidence === 'keep-evidence' ? run.resources.filter(isEvidence) : [];
  const removed = { ...run, resources: run.resources.filter((resource) => !kept.includes(resource)) };
  const problems: string[] = [];
  // Remove containers before processes: only the engine can kill a process in a paused container.
  const containers = await removeContainers(run, problems);
  const processes = run.sameBoot ? await killProcesses(run, problems) : 0;
  const pids = run.resources.flatMap((resource) => (resource.kind === 'process' ? [resource.pid] : []));
  for (const pid of pids) removeFaketimeFiles(pid);
  if (run.sameBoot) removeSharedMemory(new Set(pids));
  // A storage daemon that cannot be killed must not keep the removal of its disk waiting.
  if (problems.length > 0)
    for (const { kind, ...rest } of run.resources)
      if (kind === 'mount' && 'path' in rest) abortFuse(rest.path);
  const counts = removeResources(removed, problems);
  if (problems.length + notRemoved.length + kept.length === 0 && run.file !== undefined) {
    rmSync(run.file, { force: true });
    if (run.outDir !== undefined) unmarkOutDirectory(run.outDir, run.runId);
  }
  return { runId: run.runId, containers, processes, ...counts, problems, notRemoved };
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
    if (isMarkOf(environmentOf(pid, RUN_VARIABLE), runId)) pids.add(pid);
  }
  return [...pids];
}

/**
 * Returns the live processes in the mount namespaces that the kit has made for the run's processes. A daemon that has
 * left its session and cleared its environment is still in such a namespace.
 * @param held the namespaces that were found so far; those of further processes are added.
 */
function processesInNamespacesOf(run: RegisteredRun, held: HeldNamespaces): number[] {
  // Without the kit's own namespace nothing tells whether a namespace was made for the run.
  if (run.namespace === undefined) return [];
  const shared = new Set([run.namespace, mountNamespaceOf(1), mountNamespaceOf(process.pid)]);
  for (const pid of processesOf(run.runId, run.resources)) held.hold(pid, shared);
  if (held.size === 0) return [];
  return allProcesses()
    .filter(({ pid }) => held.has(mountNamespaceOf(pid)))
    .map(({ pid }) => pid);
}

/** Returns the live processes in the networks of a run. Nothing but the target's nodes is there. */
function processesInNetworksOf({ resources }: RegisteredRun): number[] {
  return resources.flatMap((resource) =>
    resource.kind === 'network' ? processesInNetwork(resource.path) : [],
  );
}

async function killProcesses(run: RegisteredRun, problems: string[]): Promise<number> {
  const seen = new Set<number>();
  const namespaces = new HeldNamespaces();
  const kill = () => {
    // Stop all of them first: while one is killed, another one could start a process without any mark of the run.
    const pids = stopProcesses(
      () => [
        ...processesOf(run.runId, run.resources),
        ...processesInNamespacesOf(run, namespaces),
        ...processesInNetworksOf(run),
      ],
      (pid) => sendSignal(pid, 'SIGSTOP'),
    );
    for (const pid of pids) {
      seen.add(pid);
      sendSignal(pid, 'SIGKILL');
    }
    const strays = killStrays(strayCriteriaOf(run));
    for (const { pid } of strays) seen.add(pid);
    return pids.size + strays.length === 0;
  };
  const gone = await until(kill, KILL_TIMEOUT_MS).finally(() => namespaces.release());
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
  networks: number;
  directories: number;
}

/**
 * Removes resources in the order of the list, newest first: a resource is removed before the resource on
 * which it was made.
 */
function removeResources({ resources, sameBoot }: RegisteredRun, problems: string[]): RemovedCounts {
  const counts: RemovedCounts = { mounts: 0, loops: 0, mappings: 0, networks: 0, directories: 0 };
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
      // Without its namespaces, an empty directory is left of a network.
      if (kind === 'network' && removeNetwork(path)) counts.networks++;
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

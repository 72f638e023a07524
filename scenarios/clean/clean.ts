import { existsSync, rmSync } from 'node:fs';
import { basename } from 'node:path';
import { messageOf } from '../../conformance/errors.js';
import { dropFilesystem } from '../../faults/power/filesystem.js';
import { removeMapping } from '../../faults/power/flakey-local.js';
import { detachLoops } from '../../faults/power/loop.js';
import { mountPoints } from '../../faults/power/mounts.js';
import { removeFaketimeFiles } from '../../faults/process/clock.js';
import { until } from '../../faults/waiting.js';
import { allProcesses, environmentOf, processEntry, sendSignal } from '../host/processes.js';
import { type RegisteredRun, type Resource, registeredRuns, stateDirectory } from '../host/registry.js';
import { removeSharedMemory } from '../host/shared-memory.js';
import { killStrays, type StrayCriteria } from '../host/strays.js';
import { connectEngine, engineAvailability, removeRunResources } from '../runtime/docker/engine.js';
import { RUN_VARIABLE } from '../runtime/runtime.js';

/** What a clean did, for people and for `--json`. */
export interface CleanResult {
  runs: {
    runId: string;
    containers: number;
    processes: number;
    mounts: number;
    loops: number;
    mappings: number;
    directories: number;
    problems: string[];
  }[];
  /** Runs whose kit still lives: left alone. */
  inUse: string[];
}

const KILL_TIMEOUT_MS = 5000;

/** Removes what killed runs left behind, and nothing else: a run whose kit still lives keeps all it has. */
export async function clean(stateDir = stateDirectory()): Promise<CleanResult> {
  const cleaned: CleanResult = { runs: [], inUse: [] };
  const seen = new Set<string>();
  // A dead run may have started kits of its own, whose runs are dead when it is cleaned.
  const next = () => registeredRuns(stateDir).find(({ alive, runId }) => !alive && !seen.has(runId));
  for (let run = next(); run !== undefined; run = next()) {
    seen.add(run.runId);
    const problems: string[] = [];
    // Before the processes: one in a container that is held cannot be killed but by the engine.
    const containers = await removeContainers(run, problems);
    const processes = run.sameBoot ? await killProcesses(run, problems) : 0;
    const pids = run.resources.flatMap((resource) => (resource.kind === 'process' ? [resource.pid] : []));
    for (const pid of pids) removeFaketimeFiles(pid);
    if (run.sameBoot) removeSharedMemory(new Set(pids));
    const counts = removeResources(run, problems);
    if (problems.length === 0) rmSync(run.file, { force: true });
    cleaned.runs.push({ runId: run.runId, containers, processes, ...counts, problems });
  }
  cleaned.inUse = registeredRuns(stateDir).flatMap(({ alive, runId }) => (alive ? [runId] : []));
  return cleaned;
}

/** What a run has left on engines; it stays there over a reboot. */
async function removeContainers({ runId, resources }: RegisteredRun, problems: string[]): Promise<number> {
  let removed = 0;
  for (const resource of resources) {
    if (resource.kind !== 'containers') continue;
    try {
      // An engine on a port of loopback is that of a lab VM: when it has gone its containers have, too.
      const ofVm = resource.engine.startsWith('tcp://127.0.0.1:');
      if (ofVm && !(await engineAvailability(resource.engine)).available) continue;
      removed += await removeRunResources(await connectEngine(resource.engine), runId);
    } catch (error) {
      problems.push(`containers on ${resource.engine}: ${messageOf(error)}`);
    }
  }
  return removed;
}

/** The live processes of a run: those with its marker, and those registered that are still the same process. */
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

/** What daemons of a target that tell in no other way whose they are still work with; not the evidence, which people read. */
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

/** In the order of the list, the newest first: what was made on something goes before it. */
function removeResources({ resources, sameBoot }: RegisteredRun, problems: string[]): RemovedCounts {
  const counts: RemovedCounts = { mounts: 0, loops: 0, mappings: 0, directories: 0 };
  for (const resource of resources) {
    if (resource.kind === 'process' || resource.kind === 'containers') continue;
    const { kind, path } = resource;
    try {
      // Mounts and loop devices went with the kernel of an earlier boot.
      if (kind === 'directory' && removeDirectory(path)) counts.directories++;
      if (kind === 'mount' && sameBoot && dropFilesystem(path)) counts.mounts++;
      if (kind === 'mapping' && sameBoot && removeMapping(path)) counts.mappings++;
      if (kind === 'loop' && sameBoot && detachLoops(path)) counts.loops++;
    } catch (error) {
      problems.push(`${kind} ${path}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  return counts;
}

function removeDirectory(path: string): boolean {
  if (!existsSync(path)) return false;
  for (const point of mountPoints()) {
    if (point === path || point.startsWith(`${path}/`)) throw new Error(`${point} is still mounted`);
  }
  rmSync(path, { recursive: true, force: true });
  return true;
}

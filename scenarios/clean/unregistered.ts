import { lstatSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { mountTable } from '../../faults/power/mounts.js';
import { MachineRuns, mappingNames, RUN_ID, seesAllProcesses } from '../host/dead-runs.js';
import type { RegisteredRun, Resource } from '../host/registry.js';
import { NETWORK_DIRECTORY } from '../runtime/nodes/namespaces.js';

/** Types of the filesystems that the kit mounts. */
const MOUNTED_TYPES = /^(ext4|xfs|tmpfs|fusectl|fuse.*)$/;
/** A path component that only a run makes: `plugpull-RUNID…` or `RUNID`. */
const OWN_COMPONENT = new RegExp(`^(plugpull-)?${RUN_ID.source}([-.].*)?$`);
/** Directories in which the kit makes directories named `plugpull-RUNID-…`. */
const SHARED_DIRECTORIES = ['/dev/shm', tmpdir()];

/**
 * Finds what dead runs of this user have left on this machine, wherever their registry was and even when it is gone:
 * marked processes, mounts and loop devices below paths that only the kit makes, devices of the device mapper and
 * directories with the kit's prefix. A run whose kit may be alive is left out.
 * @param known ids of runs that are handled by their registry.
 * @param containers the runs that have containers on an engine.
 */
export function unregisteredRuns(
  known: ReadonlySet<string>,
  containers: { engine: string; runIds: readonly string[] },
): RegisteredRun[] {
  const found = new Map<string, Resource[]>();
  const ownRuns = new Set<string>();
  const uid = process.getuid?.();
  const note = (runId: string, ...resources: Resource[]) => {
    found.set(runId, [...(found.get(runId) ?? []), ...resources]);
  };
  // The newest mount is removed first, and a mount before the device and the directory below it.
  for (const { mountPoint, type } of mountTable().reverse()) {
    const runId = MOUNTED_TYPES.test(type) ? runIdInPath(mountPoint) : undefined;
    if (runId !== undefined) note(runId, { kind: 'mount', path: mountPoint });
  }
  for (const name of mappingNames()) {
    const runId = name.startsWith('plugpull-') ? RUN_ID.exec(name)?.[0] : undefined;
    if (runId !== undefined) note(runId, { kind: 'mapping', path: `/dev/mapper/${name}` });
  }
  for (const path of backingFiles()) {
    const runId = runIdInPath(path);
    if (runId === undefined || ownerOf(dirname(path)) === undefined) continue;
    note(runId, { kind: 'loop', path });
  }
  // Loop devices, mappings and mounts are made by root only.
  if (uid === 0) for (const [runId, resources] of found) if (resources.length > 0) ownRuns.add(runId);
  for (const dir of SHARED_DIRECTORIES)
    for (const path of kitDirectoriesIn(dir)) {
      const runId = RUN_ID.exec(basename(path))?.[0];
      if (runId === undefined || ownerOf(path) !== uid) continue;
      note(runId, { kind: NETWORK_DIRECTORY.test(basename(path)) ? 'network' : 'directory', path });
      ownRuns.add(runId);
    }
  for (const runId of containers.runIds) {
    note(runId, { kind: 'containers', engine: containers.engine });
    ownRuns.add(runId);
  }
  // Look at the processes last: a kit that starts meanwhile opens its registry before it makes anything.
  const runs = new MachineRuns();
  for (const { pid, runId } of runs.processes) {
    note(runId);
    if (ownerOf(`/proc/${pid}`) === uid) ownRuns.add(runId);
  }
  return [...found].flatMap(([runId, resources]): RegisteredRun[] => {
    if (known.has(runId) || !ownRuns.has(runId) || runs.mayBeAlive(runId)) return [];
    // In a container, the kit of a run may live outside of it. Only a process of the run shows that it does not.
    if (!seesAllProcesses() && !runs.processes.some((one) => one.runId === runId)) return [];
    const starts = runs.processes.filter((one) => one.runId === runId).map(({ startTicks }) => startTicks);
    const sinceTicks = starts.length === 0 ? Number.POSITIVE_INFINITY : Math.min(...starts);
    // A FUSE mount must stay until the loop device on its file is detached.
    const order = {
      process: 0,
      containers: 0,
      mount: 1,
      mapping: 2,
      loop: 3,
      network: 4,
      directory: 5,
    } as const;
    const rank = (resource: Resource) =>
      resource.kind === 'mount' && isBackedBy(resource.path, resources) ? 4 : order[resource.kind];
    const sorted = resources.toSorted((one, other) => rank(one) - rank(other));
    return [
      {
        ...{ runId, stateDir: '', outDir: undefined, file: undefined },
        ...{ alive: false, sameBoot: true, isWatched: false },
        sinceTicks,
        resources: sorted,
      },
    ];
  });
}

/** Reports whether a loop device of the run is on the file at this mount point. */
function isBackedBy(mountPoint: string, resources: readonly Resource[]): boolean {
  return resources.some((one) => one.kind === 'loop' && one.path === mountPoint);
}

function runIdInPath(path: string): string | undefined {
  const own = path.split('/').find((part) => OWN_COMPONENT.test(part));
  return own === undefined ? undefined : RUN_ID.exec(own)?.[0];
}

/** Lists the files behind all loop devices. sysfs names them, so that no file is opened. */
function backingFiles(): string[] {
  let devices: string[];
  try {
    devices = readdirSync('/sys/block').filter((device) => device.startsWith('loop'));
  } catch {
    return [];
  }
  return devices.flatMap((device) => {
    try {
      const text = readFileSync(join('/sys/block', device, 'loop/backing_file'), 'utf8').trim();
      return [text.replace(/ \(deleted\)$/, '')];
    } catch {
      return [];
    }
  });
}

function kitDirectoriesIn(dir: string): string[] {
  try {
    return readdirSync(dir, { withFileTypes: true })
      .filter(
        (entry) =>
          entry.isDirectory() && entry.name.startsWith('plugpull-') && OWN_COMPONENT.test(entry.name),
      )
      .map(({ name }) => join(dir, name));
  } catch {
    return [];
  }
}

/** Returns the user id of the owner of a directory; undefined when it is gone. A link is not followed. */
function ownerOf(path: string): number | undefined {
  try {
    return path.startsWith('/proc/') ? statSync(path).uid : lstatSync(path).uid;
  } catch {
    return undefined;
  }
}

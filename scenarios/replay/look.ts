import { join } from 'node:path';
import { submittedIds } from '../../conformance/checkers/crash-states.js';
import type { HistoryEvent } from '../../conformance/history/events.js';
import type { Target } from '../../conformance/target-file/definition.js';
import { expandCommand } from '../../conformance/target-file/placeholders.js';
import { StateDisk } from '../../faults/crash-states/state-disk.js';
import { type CrashState, formatState } from '../../faults/write-log/state.js';
import type { StateCase } from '../bundle/manifest.js';
import { type Found, foundOf, notRecovered, patienceMs, tryMount } from '../explore/inspectors/found.js';
import { RestoreService } from '../explore/inspectors/restore-service.js';
import { Places } from '../explore/states/places.js';
import { takeAll } from '../explore/strategies/target-lanes.js';
import type { Registry } from '../host/registry.js';
import { DATA_DIR } from '../runtime/disks/local-disk.js';
import { type PreparedRuntime, RUN_VARIABLE } from '../runtime/runtime.js';
import { needRoot, type RecordedDisk } from './mounted-disk.js';

/** Looks at crash states one by one: makes the disk, mounts it, lets the target's own program restore, and unmounts. */
export interface StateLooker {
  look(state: CrashState): Promise<Found>;
  close(): void;
}

export interface LookOptions {
  target: Target;
  at: StateCase;
  disk: RecordedDisk;
  events: readonly HistoryEvent[];
  /** What a state must hold. */
  required(state: CrashState): readonly string[];
  /** For the images and logs; made. */
  dir: string;
  registry: Registry;
  runtime: PreparedRuntime;
  signal: AbortSignal;
}

/** By the target's own program that restores, where it has one; else the target is started and all is taken from it. */
export function stateLooker(options: LookOptions): StateLooker {
  const { target, at, disk: recorded, dir, registry } = options;
  needRoot();
  const places = new Places(join(dir, 'images'), registry);
  const place = places.place('state', recorded.image);
  const { recording, image: base } = recorded;
  const disk = new StateDisk({ recording, base, baseAt: 0, filesystem: at.filesystem, ...place });
  const dataDir = join(place.mountPoint, DATA_DIR);
  const way = target.crashStates?.restore
    ? byRestoring(target, target.crashStates.restore, at, dataDir, registry)
    : byStarting(options, dataDir);
  const known = new Map<string, Found>();
  return {
    async look(state) {
      const address = formatState(state);
      const before = known.get(address);
      if (before !== undefined) return before;
      const found = await once(disk, state, () => way.ask(state));
      known.set(address, found);
      return found;
    },
    close() {
      way.end();
      disk.close();
      places.remove();
    },
  };
}

interface Way {
  ask(state: CrashState): Promise<Found>;
  end(): void;
}

function byRestoring(
  target: Target,
  restore: readonly string[],
  { digests }: StateCase,
  dataDir: string,
  registry: Registry,
): Way {
  const nowhere = { dir: target.dir, node: process.execPath, data: '', sink: '', ports: new Map() };
  const service = new RestoreService(expandCommand(restore, nowhere), { [RUN_VARIABLE]: registry.runId });
  const bits = new Map(digests.map((digest, bit) => [digest, bit]));
  const queue = join(dataDir, target.crashStates?.queue ?? '.');
  return {
    async ask() {
      const { live, problems, error } = await service.ask({ queue }, patienceMs(target));
      return error === undefined ? foundOf(bits, digests.length, live, problems) : notRecovered(error);
    },
    end: () => service.end(),
  };
}

function byStarting(
  { target, runtime, at, events, required, dir, registry, signal }: LookOptions,
  dataDir: string,
): Way {
  const ids = submittedIds(events);
  return {
    ask: (state) =>
      takeAll(
        { target, runtime, registry, run: at.run, ids, events, signal },
        dataDir,
        required(state),
        join(dir, 'logs'),
      ),
    end: () => {},
  };
}

async function once(disk: StateDisk, state: CrashState, ask: () => Promise<Found>): Promise<Found> {
  const refused = tryMount(disk, state);
  if (refused !== undefined) return refused;
  try {
    return await ask();
  } finally {
    disk.unmount();
  }
}

import { join } from 'node:path';
import { submittedIds } from '../../conformance/checkers/crash-states.js';
import type { HistoryEvent } from '../../conformance/history/events.js';
import type { Target } from '../../conformance/target-file/definition.js';
import { expandCommand } from '../../conformance/target-file/placeholders.js';
import { StateDisk } from '../../faults/crash-states/state-disk.js';
import { type CrashState, formatState } from '../../faults/write-log/state.js';
import type { CrashStateCase } from '../bundle/manifest.js';
import {
  type Inspection,
  notRecovered,
  restoreTimeoutMs,
  toInspection,
  tryMount,
} from '../explore/inspectors/inspection.js';
import { RestoreService } from '../explore/inspectors/restore-service.js';
import { StateWorkspace } from '../explore/states/workspace.js';
import { consumeAll } from '../explore/strategies/run-on-target.js';
import type { Registry } from '../host/registry.js';
import { DATA_DIR } from '../runtime/disks/local-disk.js';
import { type PreparedRuntime, RUN_VARIABLE } from '../runtime/runtime.js';
import { type RecordedDisk, requireRoot } from './mounted-disk.js';

/**
 * Inspects crash states one by one: makes the disk, mounts it, lets the target recover, and unmounts the
 * disk.
 */
export interface ReplayInspector {
  inspect(state: CrashState): Promise<Inspection>;
  close(): void;
}

export interface ReplayInspectorOptions {
  target: Target;
  stateCase: CrashStateCase;
  disk: RecordedDisk;
  events: readonly HistoryEvent[];
  /** Returns the ids of the messages that a state must hold. */
  required(state: CrashState): readonly string[];
  /** Directory for the images and logs. The inspector makes it. */
  dir: string;
  registry: Registry;
  runtime: PreparedRuntime;
  /** `{scratch}` of the run, from the bundle. */
  scratch: string;
  signal: AbortSignal;
}

/**
 * The image of a bundle may be a stranger's. A target that starts programs from `{data}` cannot recover on it; its
 * explorations and gates can.
 */
const BUNDLE_LIMITS = { noexec: true } as const;

/**
 * Makes an inspector. It recovers with the target's restore program, if the target has one. Otherwise it
 * starts the target and consumes all messages.
 * @throws KitError target-unavailable when the process does not run as root.
 */
export function createReplayInspector(options: ReplayInspectorOptions): ReplayInspector {
  const { target, stateCase: at, disk: recorded, dir, registry } = options;
  requireRoot();
  const workspace = new StateWorkspace(join(dir, 'images'), registry);
  const slot = workspace.makeSlot('state', recorded.image);
  const { recording, image: base } = recorded;
  const disk = new StateDisk({
    ...{ recording, base, baseAt: 0, filesystem: at.filesystem, ...slot },
    limits: BUNDLE_LIMITS,
  });
  const dataDir = join(slot.mountPoint, DATA_DIR);
  const inspector = target.crashStates?.restore
    ? inspectByRestore(target, target.crashStates.restore, at, dataDir, registry, options.scratch)
    : inspectByStart(options, dataDir);
  const cache = new Map<string, Inspection>();
  return {
    async inspect(state) {
      const address = formatState(state);
      const cached = cache.get(address);
      if (cached !== undefined) return cached;
      const inspection = await mountAndInspect(disk, state, () => inspector.inspect(state));
      cache.set(address, inspection);
      return inspection;
    },
    close() {
      inspector.close();
      disk.close();
      workspace.remove();
    },
  };
}

interface RecoveryInspector {
  inspect(state: CrashState): Promise<Inspection>;
  close(): void;
}

function inspectByRestore(
  target: Target,
  restore: readonly string[],
  { digests }: CrashStateCase,
  dataDir: string,
  registry: Registry,
  scratch: string,
): RecoveryInspector {
  const placeholders = {
    dir: target.dir,
    node: process.execPath,
    data: '',
    scratch,
    sink: '',
    ports: new Map(),
  };
  const service = new RestoreService(expandCommand(restore, placeholders), {
    [RUN_VARIABLE]: registry.runId,
  });
  const bits = new Map(digests.map((digest, bit) => [digest, bit]));
  const queue = join(dataDir, target.crashStates?.queue ?? '.');
  return {
    async inspect() {
      const { live, problems, error } = await service.ask({ queue }, restoreTimeoutMs(target));
      return error === undefined ? toInspection(bits, digests.length, live, problems) : notRecovered(error);
    },
    close: () => service.end(),
  };
}

function inspectByStart(
  {
    target,
    runtime,
    stateCase: at,
    events,
    required,
    dir,
    registry,
    scratch,
    signal,
  }: ReplayInspectorOptions,
  dataDir: string,
): RecoveryInspector {
  const ids = submittedIds(events);
  return {
    inspect: (state) =>
      consumeAll(
        { target, runtime, registry, run: at.run, scratch, ids, events, signal },
        dataDir,
        required(state),
        join(dir, 'target'),
      ),
    close: () => {},
  };
}

async function mountAndInspect(
  disk: StateDisk,
  state: CrashState,
  inspect: () => Promise<Inspection>,
): Promise<Inspection> {
  const refused = tryMount(disk, state);
  if (refused !== undefined) return refused;
  try {
    return await inspect();
  } finally {
    disk.unmount();
  }
}

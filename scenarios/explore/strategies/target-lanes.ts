import { basename, join } from 'node:path';
import type { HistoryEvent } from '../../../conformance/history/events.js';
import type { Recorder } from '../../../conformance/history/recorder.js';
import type { Receipts } from '../../../conformance/protocols/protocol.js';
import { protocolOf } from '../../../conformance/protocols/registry/registry.js';
import type { Target } from '../../../conformance/target-file/definition.js';
import type { Recording } from '../../../faults/crash-states/materialise.js';
import { StateDisk } from '../../../faults/crash-states/state-disk.js';
import { until } from '../../../faults/waiting.js';
import type { CrashState } from '../../../faults/write-log/state.js';
import type { Registry } from '../../host/registry.js';
import { type Launched, launch } from '../../round/launch.js';
import { DATA_DIR } from '../../runtime/disks/local-disk.js';
import type { PreparedRuntime } from '../../runtime/runtime.js';
import { type Found, foundOf, notRecovered, tryMount } from '../inspectors/found.js';
import type { Place } from '../states/places.js';
import type { Exploration } from './exploration.js';
import type { WayRun } from './way.js';

/** After the last message that must come so long a silence shows that nothing more comes. */
const QUIET_MS = 150;
/** So long a silence while some are missing shows that they will not come. */
const SILENT_MS = 4000;
/** How fast it recovers is another requirement's matter: here a target that is slow has not lost anything. */
const LEAST_RECOVERY_S = 30;

/** Nobody asks for the starts and exits of services on crash states. */
const SILENT_RECORDER: Pick<Recorder, 'record'> = { record: (event) => ({ ...event, atMs: 0 }) };

/** A recorded disk, on whose crash states the target is started. */
export interface Ground {
  /** Of its places and logs. */
  name: string;
  recording: Recording;
  /** The device when the entries before `baseAt` are on the medium. */
  base: string;
  baseAt: number;
  /** What a state must hold. */
  required(state: CrashState): readonly string[];
}

/**
 * Starts the target on one crash state after the other, several at a time, takes from it all that it holds by its own
 * protocol, and sees what came.
 */
export async function runOnTarget(exploration: Exploration, way: WayRun, ground: Ground): Promise<void> {
  const jobs = way.jobs();
  const failed = new AbortController();
  const signal = AbortSignal.any([exploration.options.signal, failed.signal]);
  const stoppable = { ...exploration, options: { ...exploration.options, signal } };
  const lanes = Array.from({ length: exploration.workers }, async (_, lane) => {
    try {
      await runLane(stoppable, ground, `${ground.name}-${lane}`, jobs);
    } catch (error) {
      failed.abort();
      throw error;
    }
  });
  // Whoever unwinds must not do so below a lane that still works.
  const ends = await Promise.allSettled(lanes);
  for (const end of ends) if (end.status === 'rejected') throw end.reason;
}

async function runLane(
  exploration: Exploration,
  { recording, base, baseAt, required }: Ground,
  name: string,
  jobs: ReturnType<WayRun['jobs']>,
): Promise<void> {
  const { places, run, options } = exploration;
  const place = places.place(name, base);
  const disk = new StateDisk({ recording, base, baseAt, ...place, filesystem: run.filesystem });
  try {
    for (const job of jobs) {
      const dir = join(exploration.dir, name);
      const found = await look(exploration, disk, place, job.crash, required(job.crash), dir);
      if (options.signal.aborted) return;
      job.found(found);
    }
  } finally {
    disk.close();
  }
}

async function look(
  exploration: Exploration,
  disk: StateDisk,
  { mountPoint }: Place,
  state: CrashState,
  awaited: readonly string[],
  dir: string,
): Promise<Found> {
  const refused = tryMount(disk, state);
  if (refused !== undefined) return refused;
  try {
    const { options, registry, run, ids, recorder } = exploration;
    const { target, runtime, signal } = options;
    const from = { target, runtime, signal, registry, run: run.id, ids, events: recorder.events };
    return await takeAll(from, join(mountPoint, DATA_DIR), awaited, dir);
  } finally {
    disk.unmount();
  }
}

/** How long the target may take to get ready on a crash state. */
function recoveryMs({ guarantee }: Target): number {
  return Math.max(guarantee.recoverySeconds ?? 0, LEAST_RECOVERY_S) * 1000;
}

/**
 * Starts the target on a crash state and takes nothing from it; `cut` is called when it is ready, or was given up, and before
 * it is killed.
 */
export async function recoverOnly(
  { options, registry, run }: Exploration,
  dataDir: string,
  dir: string,
  cut: () => void,
): Promise<void> {
  const { target, runtime, signal } = options;
  const receipts: Receipts = { delivered: () => 0, consumed() {}, refused() {}, settled() {} };
  const launched = await launchOn({ target, runtime, registry, run: run.id, signal }, receipts, dataDir, dir);
  try {
    launched.receiver.hold();
    await launched.life.bringUp(recoveryMs(target));
    cut();
  } finally {
    await launched.destroy();
  }
}

/** What is taken, and by whom. */
export interface TakeFrom {
  target: Target;
  runtime: PreparedRuntime;
  registry: Registry;
  /** Of the run whose messages they are. */
  run: string;
  /** In the order of their bits. */
  ids: readonly string[];
  events: readonly HistoryEvent[];
  signal: AbortSignal;
}

/** Puts the target onto the data directory of a crash state. */
async function launchOn(
  { target, runtime, registry, run, signal }: Omit<TakeFrom, 'ids' | 'events'>,
  receipts: Receipts,
  dataDir: string,
  dir: string,
): Promise<Launched> {
  return launch({
    target,
    protocol: await protocolOf(target.protocol),
    runtime,
    registry,
    messagesOf: run,
    recorder: SILENT_RECORDER,
    receipts,
    dataDir,
    dir,
    signal,
    lane: basename(dir),
  });
}

/** Starts the target on a data directory and takes what it holds; `dir` gets its logs. */
export async function takeAll(
  { target, runtime, registry, run, ids, events, signal }: TakeFrom,
  dataDir: string,
  awaited: readonly string[],
  dir: string,
): Promise<Found> {
  const digests = new Map(
    events.flatMap((event) => (event.kind === 'submitted' ? [[event.id, event.digest]] : [])),
  );
  const bits = new Map(ids.map((id, bit) => [id, bit]));
  const came = new Set<string>();
  const wrong: string[] = [];
  let sequence = 0;
  let movedMs = performance.now();
  const receipts: Receipts = {
    delivered({ id, digest }) {
      movedMs = performance.now();
      if (id !== null && digests.get(id) === digest) came.add(id);
      else wrong.push(`a delivery of ${id ?? 'no message of this run'} that differs from its submit`);
      return ++sequence;
    },
    consumed: () => {},
    refused: () => {},
    settled: () => {},
  };
  const launched = await launchOn({ target, runtime, registry, run, signal }, receipts, dataDir, dir);
  try {
    const start = await launched.life.bringUp(recoveryMs(target));
    if (!start.ready) return notRecovered(start.detail);
    movedMs = performance.now();
    const allCame = () => awaited.every((id) => came.has(id));
    await until(
      () => performance.now() - movedMs >= (allCame() ? QUIET_MS : SILENT_MS),
      Number.POSITIVE_INFINITY,
      signal,
      10,
    );
    return foundOf(bits, ids.length, came, wrong);
  } finally {
    await launched.destroy();
  }
}

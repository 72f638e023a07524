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
import { type LaunchedTarget, launch } from '../../round/launch.js';
import { DATA_DIR } from '../../runtime/disks/local-disk.js';
import type { PreparedRuntime } from '../../runtime/runtime.js';
import { type Inspection, notRecovered, toInspection, tryMount } from '../inspectors/inspection.js';
import type { DiskSlot } from '../states/workspace.js';
import type { Exploration } from './exploration.js';
import type { StrategyRun } from './strategy-run.js';

/**
 * Silence in milliseconds after which the consumer stops, once every message that the state must hold has
 * come.
 */
const QUIET_AFTER_LAST_MS = 150;
/**
 * Silence in milliseconds after which missing messages count as lost, if the target claims no longer time. No
 * receiver was offered the messages that a state must hold, so no lease delays them.
 */
const QUIET_WHILE_MISSING_MS = 4000;
/**
 * Lower bound of the recovery timeout, in seconds. Another requirement judges the speed of the recovery;
 * here a slow target has not lost anything.
 */
const MIN_RECOVERY_TIMEOUT_S = 30;

/** A recorder that drops every event: no checker uses the starts and exits of services on crash states. */
const NULL_RECORDER: Pick<Recorder, 'record'> = { record: (event) => ({ ...event, atMs: 0 }) };

/** A recorded disk whose crash states are explored: the disk of the run, or of a recovery. */
export interface CrashStateSource {
  /** Beginning of the names of the files and log directories that are made for this disk. */
  name: string;
  recording: Recording;
  /**
   * Path of an image of the recorded disk on which the first `baseAt` writes and flushes of the log are done.
   */
  base: string;
  baseAt: number;
  /** Returns the ids of the messages that a state must hold. */
  required(state: CrashState): readonly string[];
}

/**
 * Starts the target on crash states, consumes every message by the target's protocol, and reports what came.
 * Several workers run at the same time; each inspects one state after the other.
 */
export async function runOnTarget(
  exploration: Exploration,
  strategyRun: StrategyRun,
  source: CrashStateSource,
): Promise<void> {
  const jobs = strategyRun.jobs();
  const failed = new AbortController();
  const signal = AbortSignal.any([exploration.options.signal, failed.signal]);
  const stoppable = { ...exploration, options: { ...exploration.options, signal } };
  const workers = Array.from({ length: exploration.workers }, async (_, worker) => {
    try {
      await runWorker(stoppable, source, `${source.name}-${worker}`, jobs);
    } catch (error) {
      failed.abort();
      throw error;
    }
  });
  // Wait for every worker: after a failure the disks are removed, and no worker may still use one.
  const outcomes = await Promise.allSettled(workers);
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
}

/**
 * Inspects one state after the other with the files and the mount point of one worker (`DiskSlot`), until there
 * are no more jobs.
 */
async function runWorker(
  exploration: Exploration,
  { recording, base, baseAt, required }: CrashStateSource,
  name: string,
  jobs: ReturnType<StrategyRun['jobs']>,
): Promise<void> {
  const { workspace, run, options } = exploration;
  const slot = workspace.makeSlot(name, base);
  const disk = new StateDisk({ recording, base, baseAt, ...slot, filesystem: run.filesystem });
  try {
    for (const job of jobs) {
      const dir = join(exploration.dir, name);
      const inspection = await inspectState(exploration, disk, slot, job.crash, required(job.crash), dir);
      if (options.signal.aborted) return;
      job.onInspected(inspection);
    }
  } finally {
    disk.close();
  }
}

/** Inspects one crash state: mounts its disk, starts the target, consumes its messages, unmounts the disk. */
async function inspectState(
  exploration: Exploration,
  disk: StateDisk,
  { mountPoint }: DiskSlot,
  state: CrashState,
  expectedIds: readonly string[],
  dir: string,
): Promise<Inspection> {
  const refused = tryMount(disk, state);
  if (refused !== undefined) return refused;
  try {
    const { options, registry, run, ids, recorder } = exploration;
    const { target, runtime, signal } = options;
    const consumeOptions = {
      target,
      runtime,
      signal,
      registry,
      run: run.id,
      scratch: run.scratch,
      ids,
      events: recorder.events,
    };
    return await consumeAll(consumeOptions, join(mountPoint, DATA_DIR), expectedIds, dir);
  } finally {
    disk.unmount();
  }
}

/** Returns the upper bound of the time until the target is ready on a crash state, in milliseconds. */
function recoveryTimeoutMs({ guarantee }: Target): number {
  return Math.max(guarantee.recoverySeconds ?? 0, MIN_RECOVERY_TIMEOUT_S) * 1000;
}

/** Returns the silence after which missing messages count as lost, in milliseconds. */
function quietWhileMissingMs({ guarantee }: Target): number {
  return Math.max(1000 * (guarantee.redeliverySeconds ?? 0), QUIET_WHILE_MISSING_MS);
}

/**
 * Starts the target on a crash state and consumes nothing. Calls `cut` when the target is ready or has
 * failed to get ready, before the target is killed.
 */
export async function recoverTarget(
  { options, registry, run }: Exploration,
  dataDir: string,
  dir: string,
  cut: () => void,
): Promise<void> {
  const { target, runtime, signal } = options;
  const receipts: Receipts = { delivered: () => 0, consumed() {}, refused() {}, settled() {} };
  const launched = await launchOnState(
    { target, runtime, registry, run: run.id, scratch: run.scratch, signal },
    receipts,
    dataDir,
    dir,
  );
  try {
    launched.receiver.hold();
    await launched.supervisor.bringUp(recoveryTimeoutMs(target));
    cut();
  } finally {
    await launched.destroy();
  }
}

/** The options of `consumeAll`. */
export interface ConsumeOptions {
  target: Target;
  runtime: PreparedRuntime;
  registry: Registry;
  /** Id of the run whose messages the target holds. */
  run: string;
  /** `{scratch}` of that run. */
  scratch: string;
  /** Ids of the messages, in the order of the messages' bits in an inspection. */
  ids: readonly string[];
  /** History of the run `run`, with the digest of each message. */
  events: readonly HistoryEvent[];
  signal: AbortSignal;
}

/** Launches the target on the data directory of a crash state. Its services are not started yet. */
async function launchOnState(
  { target, runtime, registry, run, scratch, signal }: Omit<ConsumeOptions, 'ids' | 'events'>,
  receipts: Receipts,
  dataDir: string,
  dir: string,
): Promise<LaunchedTarget> {
  return launch({
    target,
    protocol: await protocolOf(target.protocol),
    runtime,
    registry,
    messagesOf: run,
    recorder: NULL_RECORDER,
    receipts,
    dataDir,
    dir,
    logDirLabel: join(basename(dir), 'logs'),
    scratchFrom: scratch,
    signal,
    worker: basename(dir),
  });
}

/**
 * Starts the target on a data directory, consumes what it holds, and stops it.
 * @param expectedIds messages that must come. The consumer waits longer while one of them is missing.
 * @param dir directory for the logs of the target.
 */
export async function consumeAll(
  { target, runtime, registry, run, scratch, ids, events, signal }: ConsumeOptions,
  dataDir: string,
  expectedIds: readonly string[],
  dir: string,
): Promise<Inspection> {
  const digests = new Map(
    events.flatMap((event) => (event.kind === 'submitted' ? [[event.id, event.digest]] : [])),
  );
  const bits = new Map(ids.map((id, bit) => [id, bit]));
  const receivedIds = new Set<string>();
  const wrong: string[] = [];
  let sequence = 0;
  let lastDeliveryMs = performance.now();
  const receipts: Receipts = {
    delivered({ id, digest }) {
      lastDeliveryMs = performance.now();
      if (id !== null && digests.get(id) === digest) receivedIds.add(id);
      else wrong.push(`a delivery of ${id ?? 'no message of this run'} that differs from its submit`);
      return ++sequence;
    },
    consumed: () => {},
    refused: () => {},
    settled: () => {},
  };
  const launched = await launchOnState(
    { target, runtime, registry, run, scratch, signal },
    receipts,
    dataDir,
    dir,
  );
  try {
    const start = await launched.supervisor.bringUp(recoveryTimeoutMs(target));
    if (!start.ready) return notRecovered(start.detail);
    lastDeliveryMs = performance.now();
    const allReceived = () => expectedIds.every((id) => receivedIds.has(id));
    await until(
      () =>
        performance.now() - lastDeliveryMs >=
        (allReceived() ? QUIET_AFTER_LAST_MS : quietWhileMissingMs(target)),
      Number.POSITIVE_INFINITY,
      signal,
      10,
    );
    return toInspection(bits, ids.length, receivedIds, wrong);
  } finally {
    await launched.destroy();
  }
}

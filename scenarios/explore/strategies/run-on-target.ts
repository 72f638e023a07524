import { basename, join } from 'node:path';
import { messageOf } from '../../../conformance/errors.js';
import type { HistoryEvent } from '../../../conformance/history/events.js';
import type { Recorder } from '../../../conformance/history/recorder.js';
import type { Receipts } from '../../../conformance/protocols/protocol.js';
import { protocolOf } from '../../../conformance/protocols/registry/registry.js';
import type { Target } from '../../../conformance/target-file/definition.js';
import type { Recording } from '../../../faults/crash-states/materialise.js';
import { StateDisk } from '../../../faults/crash-states/state-disk.js';
import { sleep, until } from '../../../faults/waiting.js';
import type { CrashState } from '../../../faults/write-log/state.js';
import type { Registry } from '../../host/registry.js';
import { NUDGE_INTERVAL_MS } from '../../round/drain.js';
import { type LaunchedTarget, type LaunchPlan, launch } from '../../round/launch.js';
import { runNudge } from '../../round/recoveries.js';
import { DATA_DIR } from '../../runtime/disks/local-disk.js';
import type { PreparedRuntime } from '../../runtime/runtime.js';
import { type Inspection, notRecovered, toInspection, tryMount } from '../inspectors/inspection.js';
import type { TimedOut } from '../inspectors/mount-inspector.js';
import type { DiskSlot } from '../states/workspace.js';
import type { Exploration } from './exploration.js';
import type { StrategyRun } from './strategy-run.js';

/**
 * Silence in milliseconds after which the consumer stops, once every message that the state must hold has
 * come.
 */
const QUIET_AFTER_LAST_MS = 150;
/**
 * Silence in milliseconds after which missing messages count as lost, if the target claims no time. It is long,
 * because the target may wait before it offers a message again. It costs time in broken states only, and these are few.
 */
const QUIET_WHILE_MISSING_MS = 15_000;
/** Lower bound of that silence for a target that claims a time: the machine may be slow. */
const MIN_QUIET_WHILE_MISSING_MS = 4000;
/**
 * Lower bound of the recovery timeout, in seconds. Another requirement judges the speed of the recovery;
 * here a slow target has not lost anything.
 */
const MIN_RECOVERY_TIMEOUT_S = 30;
const PROMOTE_TIMEOUT_MS = 30_000;
const PROMOTE_INTERVAL_MS = 300;

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
  let nudgeFailed = false;
  const onNudgeFailed = (line: string) => {
    if (!nudgeFailed) exploration.options.progress(line);
    nudgeFailed = true;
  };
  const failed = new AbortController();
  const signal = AbortSignal.any([exploration.options.signal, failed.signal]);
  const stoppable = { ...exploration, options: { ...exploration.options, signal } };
  const workers = Array.from({ length: exploration.workers }, async (_, worker) => {
    try {
      await runWorker(stoppable, source, `${source.name}-${worker}`, jobs, onNudgeFailed);
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
  onNudgeFailed: (line: string) => void,
): Promise<void> {
  const { workspace, run, options } = exploration;
  const slot = workspace.makeSlot(name, base);
  const disk = new StateDisk({ recording, base, baseAt, ...slot, filesystem: run.filesystem });
  try {
    for (const job of jobs) {
      const dir = join(exploration.dir, name);
      const expectedIds = required(job.crash);
      const inspection = await inspectState(
        { ...exploration, onNudgeFailed },
        disk,
        slot,
        job.crash,
        expectedIds,
        dir,
      );
      if (options.signal.aborted) return;
      if ('hung' in inspection) job.onTimedOut(inspection);
      else job.onInspected(inspection);
    }
  } finally {
    disk.close();
  }
}

/** Inspects one crash state: mounts its disk, starts the target, consumes its messages, unmounts the disk. */
async function inspectState(
  exploration: Exploration & Required<Pick<ConsumeOptions, 'onNudgeFailed'>>,
  disk: StateDisk,
  { mountPoint }: DiskSlot,
  state: CrashState,
  expectedIds: readonly string[],
  dir: string,
): Promise<Inspection | TimedOut> {
  const refused = tryMount(disk, state);
  if (refused !== undefined) return refused;
  try {
    const { options, registry, run, ids, recorder, endMs, onNudgeFailed } = exploration;
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
      onNudgeFailed,
    };
    return await consumeUntil(endMs, consumeOptions, join(mountPoint, DATA_DIR), expectedIds, dir);
  } finally {
    disk.unmount();
  }
}

/** Returns the upper bound of the time until the target is ready on a crash state, in milliseconds. */
function recoveryTimeoutMs({ guarantee }: Target): number {
  const { recoverySeconds = 0, cluster } = guarantee;
  return 1000 * Math.max(recoverySeconds + (cluster?.electionSeconds ?? 0), MIN_RECOVERY_TIMEOUT_S);
}

/** Returns the silence after which missing messages count as lost, in milliseconds. */
export function quietWhileMissingMs({ redeliverySeconds }: Target['guarantee']): number {
  if (redeliverySeconds === undefined) return QUIET_WHILE_MISSING_MS;
  return Math.max(1000 * redeliverySeconds, MIN_QUIET_WHILE_MISSING_MS);
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

/** Where a cluster is started on a crash state. */
export type ClusterStart = Required<
  Pick<LaunchPlan, 'place' | 'nodeDataDirs' | 'nodeScratchFrom' | 'absentNodes'>
> & {
  /** Node on which the target's command `promote` runs, if it has one; undefined: on none. */
  promoted?: string | undefined;
};

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
  /** Only for a target with `nodes`, which has no single data directory and `{scratch}`. */
  cluster?: ClusterStart;
  /** Called with one line each time the target's `nudge` command has failed. The failure only makes the wait longer. */
  onNudgeFailed?(line: string): void;
}

/** Launches the target on the data directory of a crash state. Its services are not started yet. */
async function launchOnState(
  {
    target,
    runtime,
    registry,
    run,
    scratch,
    signal,
    cluster,
  }: Omit<ConsumeOptions, 'ids' | 'events' | 'onNudgeFailed'>,
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
    ...(cluster === undefined ? { scratchFrom: scratch } : cluster),
    signal,
    worker: basename(dir),
  });
}

/**
 * Starts the target on a data directory, consumes what it holds, and stops it. Waits for a missing message as long as
 * the target may keep it back.
 * @param expectedIds messages that must come. The consumer waits longer while one of them is missing.
 * @param dir directory for the logs of the target.
 */
export async function consumeAll(
  options: ConsumeOptions,
  dataDir: string,
  expectedIds: readonly string[],
  dir: string,
): Promise<Inspection> {
  return (await consume(Number.POSITIVE_INFINITY, options, dataDir, expectedIds, dir)).inspection;
}

/**
 * Does the same as `consumeAll`, but stops to wait for messages at `endMs` of `performance.now()`. Messages that are
 * still missing then may be late and not lost, so the state is not judged.
 */
export async function consumeUntil(
  endMs: number,
  options: ConsumeOptions,
  dataDir: string,
  expectedIds: readonly string[],
  dir: string,
): Promise<Inspection | TimedOut> {
  const { inspection, timedOut } = await consume(endMs, options, dataDir, expectedIds, dir);
  return timedOut ? { hung: false } : inspection;
}

async function consume(
  endMs: number,
  options: ConsumeOptions,
  dataDir: string,
  expectedIds: readonly string[],
  dir: string,
): Promise<{ inspection: Inspection; timedOut: boolean }> {
  const { target, ids, events, signal } = options;
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
  const launched = await launchOnState(options, receipts, dataDir, dir);
  const nudging = new AbortController();
  let nudged: Promise<void> = Promise.resolve();
  try {
    const promotion = promote(launched, options);
    const start = await launched.supervisor.bringUp(recoveryTimeoutMs(target)).finally(promotion.end);
    const refusal = await promotion.refused;
    // A node that must not become primary, because it may lack messages, is right to refuse.
    if (refusal !== undefined && !start.ready)
      return { inspection: { ...notRecovered(refusal), unmountable: true }, timedOut: false };
    if (!start.ready) return { inspection: notRecovered(start.detail), timedOut: false };
    nudged = nudgeRepeatedly(launched, options, nudging.signal);
    lastDeliveryMs = performance.now();
    const allReceived = () => expectedIds.every((id) => receivedIds.has(id));
    const isQuiet = await until(
      () =>
        performance.now() - lastDeliveryMs >=
        (allReceived() ? QUIET_AFTER_LAST_MS : quietWhileMissingMs(target.guarantee)),
      endMs - performance.now(),
      signal,
      10,
    );
    // A wrong delivery violates the requirement, whatever may still come.
    const timedOut = !isQuiet && !allReceived() && wrong.length === 0;
    return { inspection: toInspection(bits, ids.length, receivedIds, wrong), timedOut };
  } finally {
    nudging.abort();
    await launched.destroy();
    // The disk is unmounted next, and the command may use it.
    await nudged;
  }
}

/**
 * Runs the target's `promote` command on a node until it succeeds or `end` is called: at first the node may not listen yet.
 * `refused` resolves to the end of the last output when it never succeeded; undefined when it did, or when none was to run.
 */
function promote(
  { nodes }: LaunchedTarget,
  { target, cluster, signal }: ConsumeOptions,
): { end(): void; refused: Promise<string | undefined> } {
  const node = nodes.find(({ name }) => name === cluster?.promoted);
  if (target.promote === undefined || node === undefined)
    return { end: () => {}, refused: Promise.resolve(undefined) };
  const command = node.expand(target.promote);
  const ended = new AbortController();
  const any = AbortSignal.any([signal, ended.signal]);
  const refused = (async () => {
    let last = '';
    do {
      const result = await node.deployment
        .runCommand(`promote@${node.name}`, command, PROMOTE_TIMEOUT_MS)
        .catch((error: unknown) => ({ code: null, stderr: messageOf(error) }));
      if (result.code === 0) return undefined;
      last = `${node.name} could not be promoted: ${result.stderr.trim().split('\n').at(-1) ?? ''}`;
      await sleep(PROMOTE_INTERVAL_MS, any);
    } while (!any.aborted);
    return last;
  })();
  return { end: () => ended.abort(), refused };
}

/** Runs the target's `nudge` command, if it has one, at once and then every NUDGE_INTERVAL_MS until `signal`. */
async function nudgeRepeatedly(
  { deployment, expand }: LaunchedTarget,
  { target, onNudgeFailed }: ConsumeOptions,
  signal: AbortSignal,
): Promise<void> {
  if (target.nudge === undefined) return;
  const command = expand(target.nudge);
  while (!signal.aborted) {
    const startMs = performance.now();
    const failure = await runNudge(deployment, command);
    // The end of the target also ends the command.
    if (failure !== undefined && !signal.aborted) onNudgeFailed?.(failure);
    await sleep(NUDGE_INTERVAL_MS - (performance.now() - startMs), signal);
  }
}

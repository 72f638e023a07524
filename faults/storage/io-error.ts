import { rmSync } from 'node:fs';
import { join, relative } from 'node:path';
import type {
  FailedCall,
  FailedCalls,
  Fault,
  FaultContext,
  Injection,
  LostFile,
  Random,
  Service,
} from '../fault.js';
import { regularFiles } from '../files/walk.js';
import { hit, killServices, miss } from '../injection.js';
import { straceAvailability } from '../programs.js';
import { logUniformInt } from '../random-choice.js';
import { SYNC_CALLS, WRITE_CALLS } from '../tracing/call-kinds.js';
import {
  type CallPositions,
  callsAfterConfirmation,
  narrowPositions,
} from '../tracing/calls-after-confirmation.js';
import { isScratch, type TracedStart } from '../tracing/remade-files.js';
import { Snapshot } from '../tracing/snapshot.js';
import { type InjectedFailure, injectedFailures, straceCommand, type Tampering } from '../tracing/strace.js';
import { readStraceLog } from '../tracing/strace-log.js';
import {
  noteRecovery,
  resumeTraced,
  revertSome,
  startTraced,
  stopTraced,
  traceesOf,
  traceLogOf,
  unsyncedFiles,
  whyNothingCounts,
} from '../tracing/traced-target.js';
import { until } from '../waiting.js';
import { failDeviceWrites } from './io-error-device.js';

const ERRORS = ['EIO', 'ENOSPC'] as const;
/** Upper bound for the position of the first call that fails. Each thread counts its own calls. */
const MAX_SUCCESSES_BEFORE = 40;
/** Upper bound for the number of failures in a row, after the first one. */
const MAX_BURST = 6;
const MAX_TRIES = 4;
/** Upper bound for the wait for the first confirmation under strace, in ms. */
const WARM_UP_TIMEOUT_MS = 6000;
/** Upper bound for the wait from the first confirmation to the failure, in ms. */
const FAILURE_TIMEOUT_MS = 3000;
const CONFIRM_POLL_MS = 200;
/** Number of confirmations that show that a target has room for messages, and the upper bound of the wait in ms. */
const ROOM_CONFIRMS = 10;
const ROOM_TIMEOUT_MS = 5000;
const NOTHING_LOST = 'nothing was unsynced';
const FAILED_EARLY = 'nothing was confirmed at the start before the failure, or after it';
const NOT_STOPPED = 'the services did not stop at SIGSTOP';
/**
 * Upper bound for the number of confirmations after the failure. These confirmations may depend on the failed
 * calls.
 */
const MAX_CONFIRMS_AFTER = 40;
/** Upper bound for the wait for confirmations after the failure, in ms. */
const CONFIRMS_AFTER_TIMEOUT_MS = 800;
/** Upper bound for the paths on strace's command line, because the kernel limits its length. */
const MAX_PATHS = 64;

/**
 * Simulates a failing disk: a sync or a write returns EIO or ENOSPC and does nothing, once, a few times, or
 * from then on. Only the program sees the failure, because strace returns it in the kernel's place. The fault
 * therefore makes the loss afterwards: it kills all services and reverts the sectors that no successful sync
 * has covered. Receivers take nothing meanwhile, because a message that is delivered at once cannot be lost.
 * The disk works again at the restart.
 *
 * If the disk can make writes fail itself (dm-flakey), the fault uses the disk's own errors instead, and the
 * kernel itself gets the error.
 */
export const ioError: Fault = {
  name: 'io-error',
  family: 'io-error',
  summary: 'msync, fsync or write fails with EIO or ENOSPC: a failed sync is not a confirmation',
  needs: { target: 'up', disk: 'any' },
  preferredDisk: 'power',
  actsOnStoredData: true,
  available: async () => straceAvailability(),
  async inject(context: FaultContext): Promise<Injection> {
    const names = context.services.map(({ name }) => name);
    const writeErrors = context.powerDisk?.writeErrors;
    if (writeErrors !== undefined) return failDeviceWrites(context, writeErrors);
    const strace = straceAvailability();
    if (!strace.available) return miss(`this disk cannot fail, and ${strace.why}`, names);
    const misses: string[] = [];
    let persistent = false;
    let positions: Map<readonly string[], CallPositions> | undefined;
    // Prefer syncs: most targets sync more often than they use these write calls.
    let calls = context.random.int(3) > 0 ? SYNC_CALLS : WRITE_CALLS;
    if (context.aim === undefined && context.syncSites?.isEmpty === true)
      positions = await callsAfterConfirmation(context);
    const aim = context.aim ?? context.syncSites?.draw(context.random.fork('aim'));
    if (aim !== undefined) calls = aim.calls === 'sync' ? SYNC_CALLS : WRITE_CALLS;
    let aimed = aim?.position;
    for (let attempt = 1; attempt <= MAX_TRIES && !context.signal.aborted; attempt++) {
      if (attempt > 1) await makeRoom(context);
      const first =
        aimed ?? drawFirst(context.random, attempt, attempt === 1 ? undefined : positions?.get(calls));
      const tampering = drawTampering(context, first, calls, { persistent, single: aimed !== undefined });
      const isLast = attempt === MAX_TRIES;
      const { failedCount, lostData, torn, tooEarly, detail, failingMs, ...traces } = await failCalls(
        context,
        tampering,
        { acceptsEarly: isLast },
      );
      if (tooEarly) {
        misses.push(detail);
        aimed = undefined;
        // Let the same calls fail once more, but after a confirmation.
        positions ??= await learnPositions(context);
        narrowPositions(positions, calls, { from: first + 1 });
        continue;
      }
      if (lostData)
        return { ...hit(detail, torn ? 'machine' : 'all-processes', names), failingMs, aim, ...traces };
      const what = `${tampering.what.slice('error='.length)} at call ${tampering.when} of ${tampering.calls.join(', ')}`;
      misses.push(failedCount > 0 ? detail : `${what}: not reached in ${FAILURE_TIMEOUT_MS} ms`);
      // A target that repeats a failed sync with success has nothing to lose, so the repeated sync must fail
      // as well. A target that made no call of one kind may make calls of the other kind.
      persistent = failedCount > 0;
      if (failedCount > 0) continue;
      aimed = undefined;
      positions ??= await learnPositions(context);
      narrowPositions(positions, calls, { to: first - 1 });
      const others = calls === SYNC_CALLS ? WRITE_CALLS : SYNC_CALLS;
      if (positions.has(others) || !positions.has(calls)) calls = others;
    }
    return { ...miss(misses.join('; '), names), scope: 'all-processes', aim };
  },
  async heal(context: FaultContext): Promise<void> {
    context.flood(false);
  },
};

async function learnPositions(context: FaultContext): Promise<Map<readonly string[], CallPositions>> {
  await makeRoom(context);
  return callsAfterConfirmation(context);
}

/**
 * Lets receivers take messages until the target confirms some again. A try floods the target while they take nothing, and
 * a target that is full confirms nothing in the next try.
 */
async function makeRoom(context: FaultContext): Promise<void> {
  await killServices(context.services);
  context.flood(false);
  for (const service of context.services) await service.start([]);
  await context.waitForConfirms(ROOM_CONFIRMS, ROOM_TIMEOUT_MS);
}

/**
 * Draws the position of the first call that fails. The first attempt may draw late positions, which the target may not
 * reach, and early ones that belong to its start. Later attempts draw from the positions that are known to come after a
 * confirmation, and without them only early ones. A process for each message makes few calls, so the first call of a
 * process may fail too.
 */
function drawFirst(random: Random, attempt: number, known: CallPositions | undefined): number {
  if (known !== undefined) return known.from - 1 + logUniformInt(random, 1, known.to - known.from + 1);
  return logUniformInt(
    random,
    1,
    attempt === 1 ? MAX_SUCCESSES_BEFORE : Math.ceil(MAX_SUCCESSES_BEFORE / 10),
  );
}

/**
 * Draws the error, and how many calls fail from the first one on: all of them if `persistent`, else only this one if
 * `single`, so that the target works on and a confirmation can rest on it.
 */
function drawTampering(
  { random }: FaultContext,
  first: number,
  calls: readonly string[],
  { persistent, single }: { persistent: boolean; single: boolean },
): Tampering {
  const last = first + 1 + random.int(MAX_BURST);
  const onward = `${first}+`;
  const what = `error=${random.pick(ERRORS)}` as const;
  const drawn = random.pick([`${first}`, `${first}..${last}`, onward]);
  return { calls, what, when: persistent ? onward : single ? `${first}` : drawn };
}

/** Result of an injection of failing system calls: how many failed, and whether data was lost. */
export interface FailureResult {
  /** Number of calls that failed. */
  failedCount: number;
  /** True when data that the target meant to write is missing after the kill. */
  lostData: boolean;
  /** True when the data is missing because sectors that no sync had covered were reverted. */
  torn: boolean;
  /**
   * True when the failure came before the first confirmation, the target confirmed nothing after it and destroyed no
   * message, so that no confirmation rested on a failed call. Nothing was reverted then. Only without `acceptsEarly`.
   */
  tooEarly: boolean;
  /** One line for people: which calls failed, and what was lost. */
  detail: string;
  /**
   * Time in ms before the kill of the services during which data may have been lost because its sync failed.
   */
  failingMs: number;
  /** The calls that failed, with their files. */
  failed: FailedCalls;
  /** Files with messages that the target itself removed or changed during the injection. */
  destroyedFiles: LostFile[];
  /** Files from which unsynced sectors were put back. */
  lostFiles: LostFile[];
}

/** Options of `failCalls`. */
export interface FailOptions {
  /** The service whose calls fail; default: all services, because they share one disk. */
  only?: Service | undefined;
  /**
   * Whether sectors are reverted also when no confirmation can rest on a failed call, because the failure came before
   * the first confirmation and the target confirmed nothing after it. Default: yes.
   */
  acceptsEarly?: boolean;
}

/**
 * Restarts the target with failing calls, waits for the failure and for later confirmations, kills all
 * services, and reverts the sectors that no sync has covered.
 */
export async function failCalls(
  context: FaultContext,
  tampering: Tampering,
  options: FailOptions = {},
): Promise<FailureResult> {
  await killServices(context.services);
  context.losses?.before();
  const syncs = tampering.calls === SYNC_CALLS;
  return syncs ? failSyncs(context, tampering, options) : failWrites(context, tampering, options);
}

async function failSyncs(
  context: FaultContext,
  tampering: Tampering,
  { only, acceptsEarly = true }: FailOptions,
): Promise<FailureResult> {
  const beginMs = performance.now();
  const start = new Snapshot(context.dataDir, join(context.scratchDir, 'io-error-start'));
  let torn: TearResult;
  try {
    context.flood(true, 'some-refused');
    const traced = await startTraced(context, { tampering, only });
    torn = await tearAfterFailure(context, start, traced, acceptsEarly);
    await killServices(context.services);
  } finally {
    start.remove();
  }
  const failed = failuresOf(context);
  const endMs = performance.now();
  return {
    failedCount: failed.length,
    failingMs: endMs - beginMs,
    lostData: torn.done !== '' || torn.destroyedFiles.length > 0,
    torn: torn.done !== '',
    tooEarly: torn.tooEarly,
    detail: `${describeFailures(failed, tampering)}; SIGKILL to all, ${torn.done || torn.why}`,
    failed: { sinceMs: Math.round(endMs - torn.failedAtMs), calls: countFailures(failed, context) },
    destroyedFiles: torn.destroyedFiles,
    lostFiles: torn.lostFiles,
  };
}

/** What was put back after failed syncs, and what the files show. */
interface TearResult {
  /** The reverted sectors as text; empty when there were none. */
  done: string;
  /** The reason why nothing was reverted; empty otherwise. */
  why: string;
  /** See `FailureResult`. */
  tooEarly: boolean;
  /** Moment of the first failure, in ms of `performance.now()`. */
  failedAtMs: number;
  destroyedFiles: LostFile[];
  lostFiles: LostFile[];
}

/**
 * Returns the files out of which messages at risk have vanished since the start of the injection. Must be called
 * before the kit changes any file. Receivers take nothing meanwhile, so the target has no reason to remove a message.
 */
function destroyedFilesOf(context: FaultContext): LostFile[] {
  return (context.losses?.after() ?? []).filter(({ messages }) => messages.length > 0);
}

/**
 * Waits for the failure and for later confirmations, kills all services, and reverts the sectors that changed
 * since a snapshot and that no sync has covered.
 *
 * It uses the snapshot of the first confirmation, if that came before the failure: sectors of a mapped file
 * count as synced after any later sync, and a restart may sync everything. If that snapshot shows nothing to
 * revert, it uses the snapshot of the start.
 */
async function tearAfterFailure(
  context: FaultContext,
  start: Snapshot,
  traced: TracedStart,
  acceptsEarly: boolean,
): Promise<TearResult> {
  let failedAtMs = performance.now();
  const nothing = (why: string): TearResult => {
    return { done: '', why, tooEarly: false, failedAtMs, destroyedFiles: [], lostFiles: [] };
  };
  if (await confirmsBeforeFailure(context, WARM_UP_TIMEOUT_MS)) noteRecovery(context, traced);
  failedAtMs = performance.now();
  const listPids = () => traceesOf(context);
  const tracees = await stopTraced(listPids);
  if (tracees === undefined) return nothing(NOT_STOPPED);
  const failedEarly = failuresOf(context).length > 0;
  const confirmed = failedEarly
    ? undefined
    : new Snapshot(context.dataDir, join(context.scratchDir, 'io-error-snapshot'));
  try {
    const offsets = new Map(
      context.services.map((service) => [service.name, readTraceLog(context, service).length]),
    );
    resumeTraced(tracees);
    if (!(await waitForFailure(context))) return nothing('nothing failed');
    if (!failedEarly) failedAtMs = performance.now();
    const recovered = { ...traced, recoveredOffsets: new Map(traced.recoveredOffsets) };
    const confirmsAfter = await confirmsAfterFailure(context, () => {
      if (failedEarly) noteRecovery(context, recovered);
    });
    if ((await stopTraced(listPids)) === undefined) return nothing(NOT_STOPPED);
    learnSites(context, recovered);
    const candidates = [
      ...(confirmed === undefined ? [] : [{ snapshot: confirmed, offsets }]),
      { snapshot: start, offsets: new Map<string, number>() },
    ];
    const unsyncedSince = candidates.map((since) => ({
      ...since,
      files: unsyncedFiles(context, since.snapshot, since.offsets, traced),
    }));
    await killServices(context.services);
    const destroyedFiles = destroyedFilesOf(context);
    if (failedEarly && !confirmsAfter && !acceptsEarly && destroyedFiles.length === 0)
      return { ...nothing(FAILED_EARLY), tooEarly: true };
    context.losses?.before();
    let why = NOTHING_LOST;
    for (const { snapshot, files } of unsyncedSince) {
      if (typeof files === 'string') return { ...nothing(files), destroyedFiles };
      // The trace shows no reads, so it cannot prove that a file is made anew: count the file.
      const judged = files.map((one) => (one.remade === 'perhaps' ? { ...one, remade: 'no' as const } : one));
      const done = revertSome(context.random, snapshot, judged);
      if (done === '') {
        why = whyNothingCounts(files, why);
        continue;
      }
      const lostFiles = context.losses?.after() ?? [];
      const put = `unsynced sectors put back: ${done}`;
      return { done: put, why: '', tooEarly: false, failedAtMs, destroyedFiles, lostFiles };
    }
    return { ...nothing(why), destroyedFiles };
  } finally {
    confirmed?.remove();
  }
}

/** Makes writes fail. Nothing has to be reverted afterwards, because a failed write has changed nothing. */
async function failWrites(
  context: FaultContext,
  tampering: Tampering,
  { only, acceptsEarly = true }: FailOptions,
): Promise<FailureResult> {
  const paths = regularFiles(context.dataDir)
    .filter((file) => !isScratch(context, file))
    .slice(0, MAX_PATHS)
    .map((file) => join(context.dataDir, file));
  if (paths.length > 0) {
    for (const service of context.services) {
      const log = traceLogOf(context, service);
      rmSync(log, { force: true });
      const wrap = straceCommand({ log, calls: tampering.calls, tampering, paths, showPaths: true });
      await service.start(only === undefined || only === service ? wrap : []);
    }
  }
  context.flood(true, 'some-refused');
  let failedAtMs = performance.now();
  let tooEarly = false;
  if (paths.length > 0) {
    const confirmsBefore = await confirmsBeforeFailure(context, FAILURE_TIMEOUT_MS);
    if (await waitForFailure(context)) {
      failedAtMs = performance.now();
      tooEarly = !(await confirmsAfterFailure(context)) && !confirmsBefore && !acceptsEarly;
    }
  }
  await killServices(context.services);
  const failed = paths.length > 0 ? failuresOf(context) : [];
  const destroyedFiles = destroyedFilesOf(context);
  tooEarly &&= destroyedFiles.length === 0;
  return {
    failedCount: failed.length,
    lostData: failed.length > 0 && !tooEarly,
    torn: false,
    tooEarly,
    failingMs: 0,
    detail: `${describeFailures(failed, tampering)}; SIGKILL to all${tooEarly ? `; ${FAILED_EARLY}` : ''}`,
    failed: {
      sinceMs: Math.round(performance.now() - failedAtMs),
      calls: countFailures(failed, context),
    },
    destroyedFiles,
    lostFiles: [],
  };
}

/** Waits for the first confirmation since the start. Returns false when a call failed before, or when none came. */
async function confirmsBeforeFailure(context: FaultContext, timeoutMs: number): Promise<boolean> {
  const deadline = performance.now() + timeoutMs;
  while (performance.now() < deadline && failuresOf(context).length === 0 && !context.signal.aborted)
    if ((await context.waitForConfirms(1, CONFIRM_POLL_MS)) === 'reached') return true;
  return false;
}

/**
 * Waits for some confirmations after the failure, and returns whether there was at least one.
 * @param onFirst called at the first one.
 */
async function confirmsAfterFailure(context: FaultContext, onFirst = () => {}): Promise<boolean> {
  const more = logUniformInt(context.random, 1, MAX_CONFIRMS_AFTER) - 1;
  if ((await context.waitForConfirms(1, CONFIRMS_AFTER_TIMEOUT_MS)) !== 'reached') return false;
  onFirst();
  if (more > 0) await context.waitForConfirms(more, CONFIRMS_AFTER_TIMEOUT_MS);
  return true;
}

/** Notes where the target syncs, if it has confirmed something: what came before belongs to its start. */
function learnSites(context: FaultContext, { recoveredOffsets }: TracedStart): void {
  if (recoveredOffsets.size === 0) return;
  const logs = context.services.map((service) => ({
    text: readTraceLog(context, service),
    confirmedOffset: recoveredOffsets.get(service.name) ?? 0,
  }));
  context.syncSites?.learn(logs, context);
}

async function waitForFailure(context: FaultContext): Promise<boolean> {
  return until(() => failuresOf(context).length > 0, FAILURE_TIMEOUT_MS, context.signal, 10);
}

/** Returns the calls that have failed so far, one for each failure. */
function failuresOf(context: FaultContext): (InjectedFailure & { service: string })[] {
  return context.services.flatMap((service) =>
    injectedFailures(readTraceLog(context, service)).map((failure) => ({
      service: service.name,
      ...failure,
    })),
  );
}

/** Upper bound of the different calls that the history lists for one injection. */
const MAX_LISTED_CALLS = 20;

/** Counts equal failures; the most frequent come first. Paths below the data directory become relative to it. */
function countFailures(
  failures: readonly (InjectedFailure & { service: string })[],
  { dataDir }: FaultContext,
): FailedCall[] {
  const counts = new Map<string, FailedCall>();
  for (const { service, call, path, error } of failures) {
    const below = path === null ? null : relative(dataDir, path) || '.';
    const name = below?.startsWith('..') ? path : below;
    const key = JSON.stringify([service, call, name, error]);
    const known = counts.get(key);
    if (known === undefined) counts.set(key, { service, call, path: name, error, count: 1 });
    else known.count++;
  }
  return [...counts.values()].sort((one, other) => other.count - one.count).slice(0, MAX_LISTED_CALLS);
}

/** Returns the log of a service. It is empty until strace has created the file. */
function readTraceLog(context: FaultContext, service: Service): string {
  return readStraceLog(traceLogOf(context, service));
}

function describeFailures(failed: readonly InjectedFailure[], { what, when }: Tampering): string {
  const calls = [...new Set(failed.map(({ call }) => call))].sort().join(', ');
  return `${what.slice('error='.length)} from ${failed.length} calls of ${calls} (each thread's ${when})`;
}

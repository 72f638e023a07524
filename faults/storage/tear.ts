import { statSync } from 'node:fs';
import { join } from 'node:path';
import type { Fault, FaultContext, Injection, LostFile } from '../fault.js';
import { hit, killServices, liveServices, miss } from '../injection.js';
import { straceAvailability } from '../programs.js';
import { logUniformInt } from '../random-choice.js';
import { SYNC_CALLS } from '../tracing/call-kinds.js';
import type { TracedStart } from '../tracing/remade-files.js';
import { Snapshot } from '../tracing/snapshot.js';
import type { Tampering } from '../tracing/strace.js';
import {
  isMessageFile,
  noteRecovery,
  resumeTraced,
  revertSome,
  startTraced,
  stopTraced,
  traceesOf,
  traceLogOf,
  type UnsyncedFile,
  unsyncedFiles,
  wasRefusedIoUring,
  whyNothingCounts,
} from '../tracing/traced-target.js';
import { until } from '../waiting.js';

/**
 * Simulates the effect of a machine crash on data that was written and not synced, without crashing a
 * machine.
 *
 * Every service runs under strace, which logs the calls that sync, and delays their start. All services are
 * stopped, and the data directory is copied. They continue for a moment, are stopped again and killed. A
 * sector that changed in between and that no sync has covered may be on the disk or not: a seeded choice of
 * these sectors is reverted to the copy. Synced sectors, sizes and names are never changed, so a target that
 * confirms only synced data cannot lose anything.
 */
export const tear: Fault = {
  name: 'tear',
  family: 'tear',
  summary: 'SIGKILL to all, and sectors that no sync has covered put back: that is what a crash may leave',
  needs: { target: 'up', disk: 'any' },
  actsOnStoredData: true,
  available: async () => straceAvailability(),
  async inject(context: FaultContext): Promise<Injection> {
    const names = context.services.map(({ name }) => name);
    let torn: Torn | undefined;
    let showsReads = false;
    let delayMs = logUniformInt(context.random, 1, MAX_SYNC_DELAY_MS);
    for (;;) {
      await killServices(context.services);
      const start = await startTraced(context, { tampering: slowSyncs(delayMs), showsReads });
      const warmUp = await warmUpTraced(context, start);
      torn = warmUp === 'reached' ? await tearUnsyncedSectors(context, start) : undefined;
      await killServices(context.services);
      if (warmUp !== 'reached') return { ...miss(warmUp, names), scope: 'all-processes' };
      // A further trace also shows reads, when this one could not decide without them. On a busy machine a short delay
      // is small beside the other delays, and nothing was unsynced at any moment: then the delay becomes long.
      if (torn?.unsynced === 'undecided' && !showsReads) showsReads = true;
      else if (torn?.unsynced === 'nothing' && delayMs < LONG_SYNC_DELAY_MS) delayMs = LONG_SYNC_DELAY_MS;
      else break;
    }
    if (torn === undefined || torn.done === '') {
      return { ...miss(torn?.why ?? 'nothing was unsynced', names), scope: 'all-processes' };
    }
    const { done, lostFiles } = torn;
    const detail = `SIGKILL to all, unsynced sectors put back: ${done}`;
    return { ...hit(detail, 'machine', names), ...(lostFiles && { lostFiles }) };
  },
  heal: async () => {},
};

/**
 * Waits until the target has confirmed some messages.
 * @returns `reached`, or why it has not.
 */
async function warmUpTraced(context: FaultContext, start: TracedStart): Promise<string> {
  const more = context.random.int(MAX_WARM_UP_CONFIRMS);
  const first = await Promise.race([
    context.waitForConfirms(1, WARM_UP_TIMEOUT_MS),
    until(() => liveServices(context).length === 0, WARM_UP_TIMEOUT_MS, context.signal).then(() => 'timeout'),
  ]);
  if (first === 'timeout') {
    const ended = liveServices(context).length === 0 ? 'the target ended' : `in ${WARM_UP_TIMEOUT_MS} ms`;
    const refused = context.services.some((service) => wasRefusedIoUring(context, service));
    const why = refused ? '; it asked for io_uring, which a trace does not show and tear refuses' : '';
    return `no message was confirmed under strace: ${ended}${why}`;
  }
  noteRecovery(context, start);
  return more === 0 || (await context.waitForConfirms(more, WARM_UP_TIMEOUT_MS)) === 'reached'
    ? 'reached'
    : `fewer than ${more + 1} messages were confirmed under strace in ${WARM_UP_TIMEOUT_MS} ms`;
}

/**
 * Delays the start of every sync by the same time. A real disk may be as slow. The delay makes it likely that
 * a random moment finds written data that is not yet synced; without it, a queue that syncs at once would
 * hardly ever have such data.
 */
function slowSyncs(delayMs: number): Tampering {
  return { calls: [...SYNC_CALLS, 'sync'], what: `delay_enter=${delayMs * 1000}`, when: '1+' };
}

/** Upper bound of the delay of a sync in the first trace, in ms. */
const MAX_SYNC_DELAY_MS = 20;
/** Delay of a sync, in ms, after a trace in which nothing was unsynced. */
const LONG_SYNC_DELAY_MS = 200;
/** Upper bound for the number of confirmations after the first one, before the search begins. */
const MAX_WARM_UP_CONFIRMS = 20;
/** Upper bound from the start under strace to the first confirmations, in ms. */
const WARM_UP_TIMEOUT_MS = 6000;
/** Upper bound for the search for a moment with unsynced messages, in ms. */
const MAX_SEARCH_MS = 2500;
/** Upper bound for the time between two inspections, in ms. */
const MAX_WINDOW_MS = 250;
/** Upper bound for the number of confirmations between two inspections. */
const MAX_CONFIRMS = 12;

/** Result of the search for unsynced sectors. */
interface Torn {
  /** One line for people about the reverted sectors; empty when there was nothing that counts. */
  done: string;
  /** Reason why nothing was reverted. */
  why: string;
  /**
   * What was unsynced: files that count or certainly do not; files that perhaps count (the trace would have to show reads
   * to tell); or nothing. Undefined when the search failed.
   */
  unsynced?: 'decided' | 'undecided' | 'nothing';
  /** Files from which the revert took something. */
  lostFiles?: LostFile[];
}

function kindOf(unsynced: readonly UnsyncedFile[]): NonNullable<Torn['unsynced']> {
  if (unsynced.length === 0) return 'nothing';
  const counts = unsynced.some(({ remade }) => remade === 'no');
  return !counts && unsynced.some(({ remade }) => remade === 'perhaps') ? 'undecided' : 'decided';
}

/**
 * Finds a moment at which message bytes are unsynced, and reverts some of them. Leaves every service stopped
 * or dead.
 */
async function tearUnsyncedSectors(context: FaultContext, start: TracedStart): Promise<Torn> {
  const deadline = performance.now() + MAX_SEARCH_MS;
  const offsets = new Map<string, number>();
  let snapshot: Snapshot | undefined;
  let inspections = 0;
  try {
    for (;;) {
      // List the processes before the wait, so that the stop follows the confirmation without delay.
      const known = traceesOf(context);
      if (inspections > 0)
        await context.waitForConfirms(
          logUniformInt(context.random, 1, MAX_CONFIRMS),
          1 + context.random.int(MAX_WINDOW_MS),
        );
      const tracees = await stopTraced(() => traceesOf(context), known);
      if (tracees === undefined) return { done: '', why: 'the services did not stop at SIGSTOP' };
      const timedOut = performance.now() > deadline || context.signal.aborted;
      const unsynced = snapshot === undefined ? [] : unsyncedFiles(context, snapshot, offsets, start);
      if (typeof unsynced === 'string') return { done: '', why: unsynced };
      const messagesUnsynced = unsynced.some(
        ({ file, sectors, remade }) => remade === 'no' && sectors.length > 0 && isMessageFile(context, file),
      );
      if (snapshot !== undefined && (messagesUnsynced || timedOut)) {
        await killServices(context.services);
        context.losses?.before();
        const done = revertSome(context.random, snapshot, unsynced);
        const lostFiles = done === '' ? undefined : context.losses?.after();
        return {
          done,
          ...(lostFiles && { lostFiles }),
          why: whyNothingCounts(unsynced, `nothing was unsynced at ${inspections} moments`),
          unsynced: kindOf(unsynced),
        };
      }
      if (snapshot === undefined)
        snapshot = new Snapshot(context.dataDir, join(context.scratchDir, 'tear-snapshot'));
      else snapshot.refresh();
      for (const service of context.services)
        offsets.set(service.name, statSync(traceLogOf(context, service)).size);
      resumeTraced(tracees);
      inspections++;
    }
  } finally {
    snapshot?.remove();
  }
}

import { join } from 'node:path';
import type { FaultContext } from '../fault.js';
import { regularFiles } from '../files/walk.js';
import { killServices } from '../injection.js';
import { SYNC_CALLS, WRITE_CALLS } from './call-kinds.js';
import { descriptorOf, parseStraceLog, readStraceLog } from './strace-log.js';
import { noteRecovery, startTraced, traceLogOf } from './traced-target.js';

/** Upper bound for the wait for the first confirmation under strace, in ms. */
const FIRST_CONFIRM_TIMEOUT_MS = 6000;
/** Number of further confirmations during which calls are counted, and the upper bound for them in ms. */
const FURTHER_CONFIRMS = 20;
const FURTHER_TIMEOUT_MS = 1500;

/** Positions of calls, counted from 1 for each thread, that a start makes after its first confirmation. */
export interface CallPositions {
  from: number;
  to: number;
}

/**
 * Restarts the target under strace, lets it confirm some messages, kills it, and returns where its syncs and its writes
 * to its files stand after the first confirmation. A call at such a position fails when a confirmation can rest on it.
 * How many calls a start makes before depends on the target and on its data.
 * @returns the positions of each kind of calls; a kind is missing when no thread made such a call after the first
 *   confirmation. Empty when nothing was confirmed.
 */
export async function callsAfterConfirmation(
  context: FaultContext,
): Promise<Map<readonly string[], CallPositions>> {
  await killServices(context.services);
  context.flood(true, 'some-refused');
  const start = await startTraced(context);
  const confirmed = await context.waitForConfirms(1, FIRST_CONFIRM_TIMEOUT_MS);
  if (confirmed === 'reached') {
    noteRecovery(context, start);
    await context.waitForConfirms(FURTHER_CONFIRMS, FURTHER_TIMEOUT_MS);
  }
  await killServices(context.services);
  if (confirmed !== 'reached') return new Map();
  const logs = context.services.map((service) => ({
    text: readStraceLog(traceLogOf(context, service)),
    confirmedOffset: start.recoveredOffsets.get(service.name) ?? 0,
  }));
  context.syncSites?.learn(logs, context);
  const files = new Set(regularFiles(context.dataDir).map((file) => join(context.dataDir, file)));
  const found = [
    [SYNC_CALLS, positionsOf(logs, SYNC_CALLS)],
    [WRITE_CALLS, positionsOf(logs, WRITE_CALLS, files)],
  ] as const;
  return new Map(
    found.flatMap(([calls, positions]) => (positions === undefined ? [] : [[calls, positions] as const])),
  );
}

/**
 * Narrows the positions that later tries draw from, by what a try has shown. A start does not repeat the one before:
 * some runtimes, such as that of Go, move their work between threads, and each thread counts its own calls.
 */
export function narrowPositions(
  positions: Map<readonly string[], CallPositions>,
  calls: readonly string[],
  { from = 1, to = Number.POSITIVE_INFINITY }: Partial<CallPositions>,
): void {
  const known = positions.get(calls);
  if (known === undefined) {
    // The try has shown only one thing: the earlier positions belong to the start.
    if (from > 1 && to === Number.POSITIVE_INFINITY) positions.set(calls, { from, to: 2 * from });
    return;
  }
  // What this start has shown counts more than what the start without failures has shown.
  const first = Math.min(Math.max(known.from, from), Math.max(1, to));
  // The start without failures was killed soon, so later positions exist, too.
  const last = from > known.to ? 2 * from : known.to;
  positions.set(calls, { from: first, to: Math.max(first, Math.min(last, to)) });
}

/** A log of strace, and its length in bytes at the first confirmation. */
export interface ConfirmedLog {
  text: string;
  confirmedOffset: number;
}

/**
 * Returns the positions of the thread that makes most calls after the first confirmation. They begin where no other
 * thread fails earlier, before the first confirmation, if the thread gets that far.
 * @param files only calls on these files count. Default: all.
 */
export function positionsOf(
  logs: readonly ConfirmedLog[],
  calls: readonly string[],
  files?: ReadonlySet<string>,
): CallPositions | undefined {
  const names = new Set(calls);
  const threads = new Map<string, { before: number; total: number }>();
  for (const [index, { text, confirmedOffset }] of logs.entries()) {
    for (const { thread, name, args, doneOffset } of parseStraceLog(text)) {
      if (!names.has(name)) continue;
      if (files !== undefined && !files.has(descriptorOf(args[0])?.path ?? '')) continue;
      const key = `${index} ${thread}`;
      const counts = threads.get(key) ?? { before: 0, total: 0 };
      threads.set(key, counts);
      counts.total++;
      if (doneOffset <= confirmedOffset) counts.before++;
    }
  }
  const all = [...threads.values()];
  const mostBefore = Math.max(0, ...all.map(({ before }) => before));
  const [busiest] = all
    .filter(({ before, total }) => total > before)
    .sort((one, other) => other.total - other.before - (one.total - one.before));
  if (busiest === undefined) return undefined;
  const { before, total } = busiest;
  return { from: total > mostBefore ? mostBefore + 1 : before + 1, to: total };
}

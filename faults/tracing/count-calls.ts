import { join } from 'node:path';
import type { FaultContext } from '../fault.js';
import { regularFiles } from '../files/walk.js';
import { killServices } from '../injection.js';
import { CALL_KINDS, SYNC_CALLS, WRITE_CALLS } from './call-kinds.js';
import { straceCommand } from './strace.js';
import { readStraceLog } from './strace-log.js';
import { traceLogOf } from './traced-target.js';

/**
 * Calls of one kind that a service made during the trace. Each thread is counted separately, and the largest
 * number is reported.
 */
export interface CallCount {
  service: string;
  kind: string;
  /**
   * `fail` counts only calls that an error can be injected into: syncs, and writes to files of the target's
   * data.
   */
  what: 'kill' | 'fail';
  count: number;
}

const COUNTED_CALLS = [
  ...new Set([...CALL_KINDS.flatMap(({ calls }) => [...calls]), ...SYNC_CALLS, ...WRITE_CALLS]),
];

/**
 * Starts every service under strace, waits for `confirmCount` confirmations, kills all, and counts their
 * calls.
 */
export async function enumerateCalls(
  context: FaultContext,
  confirmCount: number,
  timeoutMs: number,
): Promise<CallCount[]> {
  await killServices(context.services);
  for (const service of context.services) {
    await service.start(
      straceCommand({ log: traceLogOf(context, service), calls: COUNTED_CALLS, showPaths: true }),
    );
  }
  await context.waitForConfirms(confirmCount, timeoutMs);
  await killServices(context.services);
  // Count only regular files: FIFOs and sockets may be there too, but writes to them do not reach the disk.
  const files = new Set(regularFiles(context.dataDir).map((file) => join(context.dataDir, file)));
  return context.services.flatMap((service) => {
    const text = readStraceLog(traceLogOf(context, service));
    return countCalls(text, files).map((one) => ({ service: service.name, ...one }));
  });
}

/**
 * Counts the calls in a log (`strace -f -y`). For each kind it returns the count of the thread that made the
 * most calls.
 * @param files paths of the target's files. A write to any other file does not count as a write that can
 *   fail.
 */
export function countCalls(log: string, files: ReadonlySet<string>): Omit<CallCount, 'service'>[] {
  const rows = [
    ...CALL_KINDS.map(({ kind, calls }) => ({ kind, what: 'kill' as const, calls, inFiles: false })),
    { kind: 'sync', what: 'fail' as const, calls: SYNC_CALLS, inFiles: false },
    { kind: 'write', what: 'fail' as const, calls: WRITE_CALLS, inFiles: true },
  ].map((row) => ({ ...row, calls: new Set<string>(row.calls), threads: new Map<string, number>() }));
  for (const [, thread = '', name = '', rest = ''] of log.matchAll(/^(\d+) +(\w+)\((.*)$/gm)) {
    for (const { calls, inFiles, threads } of rows) {
      if (!calls.has(name) || (inFiles && !files.has(/^\d+<([^>]*)>/.exec(rest)?.[1] ?? ''))) continue;
      threads.set(thread, (threads.get(thread) ?? 0) + 1);
    }
  }
  return rows
    .map(({ kind, what, threads }) => ({ kind, what, count: Math.max(0, ...threads.values()) }))
    .filter(({ count }) => count > 0);
}

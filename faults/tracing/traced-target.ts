import { readFileSync, realpathSync, rmSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { FaultContext, Random, Service } from '../fault.js';
import { matchesAny, regularFiles } from '../files/walk.js';
import { allThreadsInState } from '../thread-state.js';
import { until } from '../waiting.js';
import { READ_CALLS } from './call-kinds.js';
import { readTrace, TRACED_CALLS, type Trace } from './file-trace.js';
import { judgeRemade, type Remade, sizesOfFiles, type TracedStart } from './remade-files.js';
import type { Snapshot } from './snapshot.js';
import { hasRefusedIoUring, type StraceOptions, straceCommand, type Tampering } from './strace.js';
import { MAX_READ_BYTES, readStraceLog } from './strace-log.js';
import { unsyncedSectors } from './unsynced.js';

/** Upper bound for stopping all threads of the target, in ms. */
const STOP_TIMEOUT_MS = 2000;

/**
 * Time in ms after which a process that does not stop because it waits in the kernel counts as stopped. It may wait for
 * ever: the parent of a vfork waits for its child, which has been stopped. It stops before it runs again.
 */
const MAX_UNINTERRUPTIBLE_MS = 200;

/** Upper bound of the scans for new processes: children may be born faster than they are stopped. */
const MAX_SCANS = 20;

/** Upper bound of the reverted files that are named in one line. */
const MAX_NAMED_FILES = 8;

/**
 * A file (relative to the data directory) with the numbers of the sectors that a machine crash may have lost.
 */
export interface UnsyncedFile {
  file: string;
  sectors: number[];
  /** Identity of the file (`fileIdentity`): a call that was under way at the stop may still delete or replace it. */
  identity: string | undefined;
  /** Whether the target makes the file anew at each start, so that its loss proves nothing. */
  remade: Remade;
}

/** Returns the path of the strace log of a service. */
export function traceLogOf(context: FaultContext, service: Service): string {
  return join(context.scratchDir, `trace-${service.name}.strace`);
}

/** Options of `startTraced`. */
export interface TracedStartOptions {
  /** Change to the calls of the services. */
  tampering?: Tampering;
  /** The service whose calls are changed by `tampering`. Default: all services. */
  only?: Service | undefined;
  /** True: the trace also shows the calls that read. */
  showsReads?: boolean;
}

/**
 * Starts every service under strace, which logs its writes and syncs. `unsyncedFiles` reads the log.
 * @returns what `unsyncedFiles` has to know of this start.
 */
export async function startTraced(
  context: FaultContext,
  { tampering, only, showsReads = false }: TracedStartOptions = {},
): Promise<TracedStart> {
  const sizes = sizesOfFiles(context.dataDir);
  const reads = new Set<string>(READ_CALLS);
  const calls = showsReads ? TRACED_CALLS : TRACED_CALLS.filter((call) => !reads.has(call));
  for (const service of context.services) {
    const log = traceLogOf(context, service);
    // strace empties the log when it runs, which may be after `start` has returned. Until then the log of an earlier
    // start would be read.
    rmSync(log, { force: true });
    // The type makes the compiler refuse an option that does not exist. Without paths, no sync could be
    // assigned to its file, and everything that the target synced would be reported as unsynced.
    const options: StraceOptions = { log, calls, showPaths: true, withoutIoUring: true };
    const untampered = tampering === undefined || (only !== undefined && only !== service);
    await service.start(straceCommand(untampered ? options : { ...options, tampering }));
  }
  return { sizes, recoveredOffsets: new Map(), showsReads };
}

/** Notes that the target has just confirmed its first message since a start under strace. */
export function noteRecovery(context: FaultContext, { recoveredOffsets }: TracedStart): void {
  for (const service of context.services) {
    const size = statSync(traceLogOf(context, service), { throwIfNoEntry: false })?.size;
    if (size !== undefined) recoveredOffsets.set(service.name, size);
  }
}

/** Reports whether a service has asked for an io_uring, and was refused one because of the trace. */
export function wasRefusedIoUring(context: FaultContext, service: Service): boolean {
  return hasRefusedIoUring(readStraceLog(traceLogOf(context, service)));
}

/**
 * Finds the files with sectors that changed since the snapshot and that no sync has covered.
 * @param offsets length (in bytes) of the strace log of each service at the snapshot; 0 for a service that is
 *   not listed.
 * @param start the start under strace.
 * @returns the files, or a text with the reason when the logs allow no conclusion.
 */
export function unsyncedFiles(
  context: FaultContext,
  snapshot: Snapshot,
  offsets: ReadonlyMap<string, number>,
  start: TracedStart,
): UnsyncedFile[] | string {
  const traces = new Map<string, Trace>();
  const realPath = realPathCache();
  for (const service of context.services) {
    const log = traceLogOf(context, service);
    // Without its end the log does not show which syncs came last.
    if (statSync(log).size > MAX_READ_BYTES)
      return `${service.name}: its log of system calls has more than ${MAX_READ_BYTES} bytes`;
    const trace = readTrace(readStraceLog(log), realPath);
    if (trace.inconclusiveReason !== '') return `${service.name}: ${trace.inconclusiveReason}`;
    traces.set(service.name, trace);
  }
  // strace shows the paths of descriptors without symbolic links.
  const dataDir = realPath(context.dataDir) ?? context.dataDir;
  const unsynced: UnsyncedFile[] = [];
  for (const file of regularFiles(context.dataDir)) {
    const changed = snapshot.changedSectors(file);
    if (changed.length === 0) continue;
    const path = resolve(dataDir, file);
    const fileTraces = [...traces].flatMap(([service, { files, syncsOfAll }]) => {
      // A service that never used the file may have synced it: by a sync of all files.
      const trace = files.get(path) ?? { events: [...syncsOfAll], mapped: false };
      return trace.events.length === 0 && !trace.mapped
        ? []
        : [{ trace, snapshotOffset: offsets.get(service) ?? 0 }];
    });
    const sectors = unsyncedSectors(changed, fileTraces, snapshot.sizeOf(file));
    if (sectors.length === 0) continue;
    const identity = snapshot.identityOf(file);
    unsynced.push({
      file,
      sectors,
      identity,
      remade: judgeRemade(context, file, path, traces, start, snapshot),
    });
  }
  return unsynced;
}

/** Makes a function that resolves symbolic links, and remembers what it has found. */
function realPathCache(): (path: string) => string | undefined {
  const known = new Map<string, string | undefined>();
  return (path) => {
    if (!known.has(path)) {
      try {
        known.set(path, realpathSync(path));
      } catch {
        known.set(path, undefined);
      }
    }
    return known.get(path);
  };
}

/**
 * Reports whether a file holds messages. If the target names no message files, every file except the index
 * does.
 */
export function isMessageFile(context: FaultContext, file: string): boolean {
  if (context.messageFiles.length > 0) return matchesAny(file, context.messageFiles);
  return !matchesAny(file, context.indexFiles);
}

/** The reason when `revertSome` has nothing to revert that counts, or `otherwise` when there is nothing at all. */
export function whyNothingCounts(unsynced: readonly UnsyncedFile[], otherwise: string): string {
  if (unsynced.length === 0) return otherwise;
  const names = unsynced.map(({ file }) => file).join(', ');
  return `only files that the target makes anew at each start were unsynced: ${names}`;
}

/**
 * Reverts a seeded choice of the unsynced sectors to the snapshot, often all of them. At least one of them is in a file
 * that counts, because the target does not make it anew at each start. Files that have vanished or were replaced since
 * they were found are left out.
 * @returns one line for people about the reverted sectors; empty when no file counts. Nothing is reverted then.
 */
export function revertSome(random: Random, snapshot: Snapshot, found: readonly UnsyncedFile[]): string {
  const unsynced = found.filter(
    ({ file, identity }) => identity !== undefined && snapshot.identityOf(file) === identity,
  );
  const counting = unsynced.filter(({ remade }) => remade === 'no');
  if (counting.length === 0) return '';
  const revertsAll = random.int(5) < 2;
  const reverted: string[] = [];
  let counted = false;
  const revert = ({ file, sectors, remade }: UnsyncedFile, chosen: readonly number[]) => {
    snapshot.revertSectors(file, chosen);
    const anew = remade === 'yes' ? ' (made anew at each start)' : '';
    reverted.push(`${chosen.length} of ${sectors.length} in ${file}${anew}`);
    counted ||= remade === 'no';
  };
  for (const one of unsynced) {
    const chosen = revertsAll ? one.sectors : chooseSectors(random, one.sectors);
    if (chosen.length > 0) revert(one, chosen);
  }
  if (!counted) {
    const one = random.pick(counting);
    revert(one, one.sectors);
  }
  if (reverted.length > MAX_NAMED_FILES)
    return `${reverted.slice(0, MAX_NAMED_FILES).join(', ')} and in ${reverted.length - MAX_NAMED_FILES} more files`;
  return reverted.join(', ');
}

/** Chooses all sectors, none, a random half, all from a random one on, or a single one. */
function chooseSectors(random: Random, sectors: readonly number[]): number[] {
  switch (random.int(5)) {
    case 0:
      return [...sectors];
    case 1:
      return [];
    case 2:
      return sectors.filter(() => random.int(2) === 0);
    case 3:
      return sectors.slice(random.int(sectors.length));
    default:
      return [random.pick(sectors)];
  }
}

/**
 * Stops processes that may be forking, and waits until none of their threads runs. SIGSTOP does not prevent a fork
 * that has begun. Therefore the processes are listed again after each stop, until nothing is new: a child that was
 * missed could finish its sync and confirm a message whose sectors are then taken for unsynced.
 * @param listPids lists the processes that must stop.
 * @param known processes that were listed earlier. They are stopped first, because listing takes time in which they
 *   would run on.
 * @returns the ids of the stopped processes; undefined when stopping them took too long.
 */
export async function stopTraced(
  listPids: () => readonly number[],
  known: readonly number[] = [],
): Promise<number[] | undefined> {
  const stopped = new Set<number>();
  const stopNew = (pids: readonly number[]): boolean => {
    const newPids = pids.filter((pid) => !stopped.has(pid));
    for (const pid of newPids) {
      sendSignal(pid, 'SIGSTOP');
      stopped.add(pid);
    }
    return newPids.length > 0;
  };
  const areIn = (states: string) => [...stopped].every((pid) => allThreadsInState(pid, states));
  stopNew(known);
  // Stop the children of before this moment without waiting for their parents.
  stopNew(listPids());
  for (let scans = 0; scans < MAX_SCANS; scans++) {
    const haveStopped =
      (await until(() => areIn('TtZX'), MAX_UNINTERRUPTIBLE_MS, undefined, 1)) ||
      (await until(() => areIn('TtZXD'), STOP_TIMEOUT_MS, undefined, 1));
    if (!haveStopped) return undefined;
    if (!stopNew(listPids())) return [...stopped];
  }
  return undefined;
}

/**
 * Returns the ids of the target's processes without strace itself, which must keep running to pass the stop
 * on to every thread. When all traced processes have stopped, strace only waits, and its log is complete.
 */
export function traceesOf(context: FaultContext): number[] {
  return context.services.flatMap((service) => service.pids()).filter((pid) => tracerPid(pid) !== 0);
}

/** Lets stopped processes continue. */
export function resumeTraced(pids: readonly number[]): void {
  for (const pid of pids) sendSignal(pid, 'SIGCONT');
}

function sendSignal(pid: number, signal: 'SIGSTOP' | 'SIGCONT'): void {
  try {
    process.kill(pid, signal);
  } catch {
    // The process has exited meanwhile, so it cannot write any more.
  }
}

function tracerPid(pid: number): number {
  try {
    return Number(/^TracerPid:\s*(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1] ?? 0);
  } catch {
    return 0;
  }
}

import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Ground, Random, Service } from '../fault.js';
import { matchesAny, regularFiles } from '../files/walk.js';
import { threadsAreIn } from '../stopped.js';
import { until } from '../waiting.js';
import { readTrace, TRACED_CALLS, type Trace } from './file-trace.js';
import type { Snapshot } from './snapshot.js';
import { straceCommand, type Tampering } from './strace.js';
import { unsyncedSectors } from './unsynced.js';

const STOP_TIMEOUT_MS = 2000;

/** Sectors of a file, relative to the data directory, that a crash of the machine may have lost. */
export interface UnsyncedFile {
  file: string;
  sectors: number[];
}

/** Where the system calls of a service are written to. */
export function traceLogOf(ground: Ground, service: Service): string {
  return join(ground.scratchDir, `trace-${service.name}.strace`);
}

/**
 * Starts every service under strace, which shows what it writes and syncs; the log is read by `unsyncedFiles`.
 * @param only the one whose calls are tampered with; default: all.
 */
export async function startTraced(ground: Ground, tampering?: Tampering, only?: Service): Promise<void> {
  for (const service of ground.services) {
    const log = traceLogOf(ground, service);
    const how = { log, calls: TRACED_CALLS, named: true };
    const plain = tampering === undefined || (only !== undefined && only !== service);
    await service.start(straceCommand(plain ? how : { ...how, tampering }));
  }
}

/**
 * Every file with sectors that changed since the snapshot and that no sync has covered; or why nothing can be said.
 * @param offsets length of each service's log when the snapshot was taken; 0 where it is not named.
 */
export function unsyncedFiles(
  ground: Ground,
  snapshot: Snapshot,
  offsets: ReadonlyMap<string, number>,
): UnsyncedFile[] | string {
  const traces = new Map<string, Trace>();
  for (const service of ground.services) {
    const trace = readTrace(readFileSync(traceLogOf(ground, service), 'latin1'));
    if (trace.unclear !== '') return `${service.name}: ${trace.unclear}`;
    traces.set(service.name, trace);
  }
  const found: UnsyncedFile[] = [];
  for (const file of regularFiles(ground.dataDir)) {
    const changed = snapshot.changedSectors(file);
    if (changed.length === 0) continue;
    const path = resolve(ground.dataDir, file);
    const witnesses = [...traces].flatMap(([service, { files }]) => {
      const trace = files.get(path);
      return trace === undefined ? [] : [{ trace, snapshotOffset: offsets.get(service) ?? 0 }];
    });
    const sectors = unsyncedSectors(changed, witnesses, snapshot.sizeOf(file));
    if (sectors.length > 0) found.push({ file, sectors });
  }
  return found;
}

export function isMessageFile(ground: Ground, file: string): boolean {
  if (ground.messageFiles.length > 0) return matchesAny(file, ground.messageFiles);
  return !matchesAny(file, ground.indexFiles);
}

/** Puts a seeded choice back, often all of it; one line that says what. */
export function putBack(random: Random, snapshot: Snapshot, found: readonly UnsyncedFile[]): string {
  if (found.length === 0) return '';
  const everything = random.int(5) < 2;
  const done: string[] = [];
  for (const { file, sectors } of found) {
    const chosen = everything ? sectors : choice(random, sectors);
    if (chosen.length === 0) continue;
    snapshot.putBack(file, chosen);
    done.push(`${chosen.length} of ${sectors.length} in ${file}`);
  }
  if (done.length > 0) return done.join(', ');
  const { file, sectors } = random.pick(found);
  snapshot.putBack(file, sectors);
  return `${sectors.length} of ${sectors.length} in ${file}`;
}

/** All, none, a random half, all from some place on, or a single one. */
function choice(random: Random, sectors: readonly number[]): number[] {
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

/** Stops processes and waits until none of their threads runs; false when that takes too long. */
export async function stopTraced(pids: readonly number[]): Promise<boolean> {
  for (const pid of pids) sendSignal(pid, 'SIGSTOP');
  return until(() => pids.every((pid) => threadsAreIn(pid, 'TtZX')), STOP_TIMEOUT_MS, undefined, 1);
}

/**
 * The processes of the target without strace, which has to pass the stop on to every thread. When all of them have
 * stopped it waits as well, and its log is complete.
 */
export function traceesOf(ground: Ground): number[] {
  return ground.services.flatMap((service) => service.pids()).filter((pid) => tracerOf(pid) !== 0);
}

/** Lets processes go on that were stopped. */
export function letGo(pids: readonly number[]): void {
  for (const pid of pids) sendSignal(pid, 'SIGCONT');
}

function sendSignal(pid: number, signal: 'SIGSTOP' | 'SIGCONT'): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It has exited meanwhile: what does not live writes nothing.
  }
}

function tracerOf(pid: number): number {
  try {
    return Number(/^TracerPid:\s*(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1] ?? 0);
  } catch {
    return 0;
  }
}

import { readFileSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Fault, Ground, Injection, Random, Service } from './fault.js';
import { matchesAny, regularFiles } from './files/walk.js';
import { hit, killServices, miss, spread, straceAvailability } from './injections.js';
import { threadsAreIn } from './stopped.js';
import { readTrace, TRACED_CALLS, type Trace } from './tear/file-trace.js';
import { Snapshot } from './tear/snapshot.js';
import { unsyncedSectors } from './tear/unsynced.js';
import { until } from './waiting.js';

/**
 * What a crash of the whole machine may do to data that was written and not synced, without a machine to crash.
 *
 * Every service runs under strace, which shows the calls that sync. All are stopped and the data directory is copied;
 * they go on for a moment; they are stopped again and killed. A sector that changed in between and that no sync has
 * covered may be on the disk or not: a seeded choice of these is put back to what it was. What a sync has covered is
 * never touched, nor are sizes and names, so a target that confirms only what it has synced cannot lose anything.
 */
export const tear: Fault = {
  name: 'tear',
  family: 'tear',
  summary: 'SIGKILL to all, and sectors that no sync has covered put back: that is what a crash may leave',
  needs: { target: 'up', disk: 'any' },
  available: async () => straceAvailability(),
  async inject(ground: Ground): Promise<Injection> {
    await killServices(ground.services);
    for (const service of ground.services) {
      await service.start([
        'strace',
        '-f',
        '--seccomp-bpf',
        '-qq',
        '-s',
        '0',
        '-y',
        '-o',
        logOf(ground, service),
        '-e',
        `trace=${TRACED_CALLS}`,
      ]);
    }
    const names = ground.services.map(({ name }) => name);
    const alive = await ground.afterConfirms(1 + ground.random.int(20), WARM_UP_MS);
    const torn = alive === 'reached' ? await tearSome(ground) : undefined;
    await killServices(ground.services);
    if (alive === 'timeout') {
      return {
        ...miss(`no message was confirmed under strace in ${WARM_UP_MS} ms`, names),
        scope: 'all-processes',
      };
    }
    if (torn === undefined || torn.done === '') {
      return { ...miss(torn?.why ?? 'nothing was unsynced', names), scope: 'all-processes' };
    }
    return hit(`SIGKILL to all, unsynced sectors put back: ${torn.done}`, 'machine', names);
  },
  heal: async () => {},
};

const WARM_UP_MS = 6000;
const LONGEST_MS = 2500;
const STOP_TIMEOUT_MS = 2000;
const LONGEST_WINDOW_MS = 250;
const MOST_CONFIRMS = 12;

function logOf(ground: Ground, service: Service): string {
  return join(ground.scratchDir, `tear-${service.name}.strace`);
}

interface Candidate {
  file: string;
  sectors: number[];
}

/** Looks for a moment at which message bytes are unsynced, and tears there; leaves every service stopped or dead. */
async function tearSome(ground: Ground): Promise<{ done: string; why: string }> {
  const deadline = performance.now() + LONGEST_MS;
  const offsets = new Map<string, number>();
  let snapshot: Snapshot | undefined;
  let looks = 0;
  try {
    for (;;) {
      const tracees = traceesOf(ground);
      // The pids are known before: the stop must follow close upon the confirmation.
      if (looks > 0)
        await ground.afterConfirms(
          spread(ground.random, 1, MOST_CONFIRMS),
          1 + ground.random.int(LONGEST_WINDOW_MS),
        );
      if (!(await stopAll(tracees))) return { done: '', why: 'the services did not stop at SIGSTOP' };
      const late = performance.now() > deadline || ground.signal.aborted;
      const found = snapshot === undefined ? [] : candidates(ground, snapshot, offsets);
      if (typeof found === 'string') return { done: '', why: found };
      const worthIt = found.some(({ file, sectors }) => sectors.length > 0 && isMessageFile(ground, file));
      if (snapshot !== undefined && (worthIt || late)) {
        await killServices(ground.services);
        return {
          done: putBack(ground.random, snapshot, found),
          why: `nothing was unsynced at ${looks} moments`,
        };
      }
      if (snapshot === undefined)
        snapshot = new Snapshot(ground.dataDir, join(ground.scratchDir, 'tear-snapshot'));
      else snapshot.renew();
      for (const service of ground.services) offsets.set(service.name, statSync(logOf(ground, service)).size);
      for (const pid of tracees) sendSignal(pid, 'SIGCONT');
      looks++;
    }
  } finally {
    snapshot?.remove();
  }
}

/** Every file with sectors that are unsynced; or why nothing can be said. */
function candidates(
  ground: Ground,
  snapshot: Snapshot,
  offsets: ReadonlyMap<string, number>,
): Candidate[] | string {
  const traces = new Map<string, Trace>();
  for (const service of ground.services) {
    const trace = readTrace(readFileSync(logOf(ground, service), 'latin1'));
    if (trace.unclear !== '') return `${service.name}: ${trace.unclear}`;
    traces.set(service.name, trace);
  }
  const found: Candidate[] = [];
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

function isMessageFile(ground: Ground, file: string): boolean {
  if (ground.messageFiles.length > 0) return matchesAny(file, ground.messageFiles);
  return !matchesAny(file, ground.indexFiles);
}

/** Puts a seeded choice back, often all of it; one line that says what. */
function putBack(random: Random, snapshot: Snapshot, found: readonly Candidate[]): string {
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
async function stopAll(pids: readonly number[]): Promise<boolean> {
  for (const pid of pids) sendSignal(pid, 'SIGSTOP');
  return until(() => pids.every((pid) => threadsAreIn(pid, 'TtZX')), STOP_TIMEOUT_MS, undefined, 1);
}

/**
 * The processes of the target without strace, which has to pass the stop on to every thread. When all of them have
 * stopped it waits as well, and its log is complete.
 */
function traceesOf(ground: Ground): number[] {
  return ground.services.flatMap((service) => service.pids()).filter((pid) => tracerOf(pid) !== 0);
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

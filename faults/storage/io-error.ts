import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Fault, Ground, Injection, Service } from '../fault.js';
import { regularFiles } from '../files/walk.js';
import { hit, killServices, miss } from '../injection.js';
import { straceAvailability } from '../programs.js';
import { spread } from '../random-choice.js';
import { SYNC_CALLS, WRITE_CALLS } from '../tracing/kinds.js';
import { Snapshot } from '../tracing/snapshot.js';
import { failedCalls, straceCommand, type Tampering } from '../tracing/strace.js';
import {
  letGo,
  putBack,
  startTraced,
  stopTraced,
  traceesOf,
  traceLogOf,
  unsyncedFiles,
} from '../tracing/traced-target.js';
import { until } from '../waiting.js';
import { failBelow } from './io-error-below.js';

const ERRORS = ['EIO', 'ENOSPC'] as const;
/** Up to which one of its kind a thread is let succeed. */
const MOST_BEFORE = 40;
const LONGEST_BURST = 6;
const TRIES = 3;
/** Until the first confirmation under strace, and from there to the failure. */
const WARM_UP_MS = 6000;
const WAIT_MS = 3000;
const LOOK_MS = 200;
const NOTHING_LOST = 'nothing was unsynced';
const NOT_STOPPED = 'the services did not stop at SIGSTOP';
/** What is answered right after the failure rests on it; so many, or so long. */
const ANSWERS = 40;
const ANSWER_MS = 800;
/** A command line is not longer than the kernel takes. */
const MOST_PATHS = 64;

/**
 * The disk fails: a sync or a write returns EIO or ENOSPC and does nothing, once, a few times or from then on. The
 * failure is real to the program only (strace returns it in the kernel's place), so the loss that it announces is
 * made afterwards: everything is killed, and what no sync has covered that succeeded is put back to what it was.
 * Receivers take nothing meanwhile, for what was delivered at once cannot be lost. The disk is well again at the restart.
 *
 * On a disk whose writes can be made to fail (dm-flakey) that is done instead: the kernel itself gets the error.
 */
export const ioError: Fault = {
  name: 'io-error',
  family: 'io-error',
  summary: 'msync, fsync or write fails with EIO or ENOSPC: a failed sync is not a confirmation',
  needs: { target: 'up', disk: 'any' },
  betterOn: 'power',
  available: async () => straceAvailability(),
  async inject(ground: Ground): Promise<Injection> {
    const names = ground.services.map(({ name }) => name);
    const below = ground.powerDisk?.failingWrites;
    if (below !== undefined) return failBelow(ground, below);
    const strace = straceAvailability();
    if (!strace.available) return miss(`this disk cannot fail, and ${strace.why}`, names);
    const misses: string[] = [];
    let persistent = false;
    let calls = ground.random.int(3) > 0 ? SYNC_CALLS : WRITE_CALLS;
    for (let time = 1; time <= TRIES && !ground.signal.aborted; time++) {
      const tampering = draw(ground, time, calls, persistent);
      const { failed, lossy, torn, detail, failingMs } = await failCalls(ground, tampering);
      if (lossy) return { ...hit(detail, torn ? 'machine' : 'all-processes', names), failingMs };
      const what = `${tampering.what.slice('error='.length)} at call ${tampering.when} of ${tampering.calls.join(', ')}`;
      misses.push(failed > 0 ? detail : `${what}: not reached in ${WAIT_MS} ms`);
      // Who has made the failed sync good by the next one has nothing to lose until that fails, too; and a target that does
      // not come to the one kind of calls may come to the other.
      persistent = failed > 0;
      if (failed === 0) calls = calls === SYNC_CALLS ? WRITE_CALLS : SYNC_CALLS;
    }
    return { ...miss(misses.join('; '), names), scope: 'all-processes' };
  },
  async heal(ground: Ground): Promise<void> {
    ground.flood(false);
  },
};

/** Most targets sync more often than they write by these calls; who did not come to its n-th call gets an early one. */
function draw({ random }: Ground, time: number, calls: readonly string[], persistent: boolean): Tampering {
  const first = spread(random, 2, time === 1 ? MOST_BEFORE : Math.ceil(MOST_BEFORE / 10));
  const last = first + 1 + random.int(LONGEST_BURST);
  const onward = `${first}+`;
  const what = `error=${random.pick(ERRORS)}` as const;
  const when = random.pick([`${first}`, `${first}..${last}`, onward]);
  return { calls, what, when: persistent ? onward : when };
}

/** What came of a tampering. */
export interface Failed {
  /** So many calls failed. */
  failed: number;
  /** And something that was to be written is not there. */
  lossy: boolean;
  /** Because sectors that no sync had covered were put back. */
  torn: boolean;
  detail: string;
  /** So long before the end whatever failed to be synced is lost. */
  failingMs: number;
}

/**
 * Restarts the target with failing calls, waits for the failure and what is answered behind it, kills everything, and
 * puts back what no sync has covered.
 * @param only of this service; default: of all, for they have one disk.
 */
export async function failCalls(ground: Ground, tampering: Tampering, only?: Service): Promise<Failed> {
  await killServices(ground.services);
  const syncs = tampering.calls === SYNC_CALLS;
  return syncs ? failSyncs(ground, tampering, only) : failWrites(ground, tampering, only);
}

async function failSyncs(ground: Ground, tampering: Tampering, only?: Service): Promise<Failed> {
  const beginMs = performance.now();
  const start = new Snapshot(ground.dataDir, join(ground.scratchDir, 'io-error-start'));
  let torn: { done: string; why: string };
  try {
    ground.flood(true);
    await startTraced(ground, tampering, only);
    torn = await tearBehindFailure(ground, start);
    await killServices(ground.services);
  } finally {
    start.remove();
  }
  const failed = failures(ground);
  return {
    failed: failed.length,
    failingMs: performance.now() - beginMs,
    lossy: torn.done !== '',
    torn: torn.done !== '',
    detail: `${told(failed, tampering)}; SIGKILL to all, ${torn.done || torn.why}`,
  };
}

/**
 * Waits for the failure and the answers behind it, kills, and puts back what no sync has covered since a snapshot: the one of
 * the first confirmation, if that came before the failure, for what a target has mapped counts as synced by any later sync, and
 * a restart may sync everything; where that shows nothing, the one of the start.
 */
async function tearBehindFailure(ground: Ground, start: Snapshot): Promise<{ done: string; why: string }> {
  const deadline = performance.now() + WARM_UP_MS;
  while (performance.now() < deadline && failures(ground).length === 0 && !ground.signal.aborted) {
    if ((await ground.afterConfirms(1, LOOK_MS)) === 'reached') break;
  }
  const tracees = traceesOf(ground);
  if (!(await stopTraced(tracees))) return { done: '', why: NOT_STOPPED };
  const early = failures(ground).length > 0;
  const confirmed = early
    ? undefined
    : new Snapshot(ground.dataDir, join(ground.scratchDir, 'io-error-snapshot'));
  try {
    const offsets = new Map(
      ground.services.map((service) => [service.name, traceOf(ground, service).length]),
    );
    letGo(tracees);
    if (!(await failure(ground))) return { done: '', why: 'nothing failed' };
    await ground.afterConfirms(spread(ground.random, 1, ANSWERS), ANSWER_MS);
    if (!(await stopTraced(traceesOf(ground)))) return { done: '', why: NOT_STOPPED };
    const chances = [
      ...(confirmed === undefined ? [] : [{ snapshot: confirmed, offsets }]),
      { snapshot: start, offsets: new Map<string, number>() },
    ];
    const found = chances.map((since) => ({
      ...since,
      files: unsyncedFiles(ground, since.snapshot, since.offsets),
    }));
    await killServices(ground.services);
    for (const { snapshot, files } of found) {
      if (typeof files === 'string') return { done: '', why: files };
      const done = putBack(ground.random, snapshot, files);
      if (done !== '') return { done: `unsynced sectors put back: ${done}`, why: '' };
    }
    return { done: '', why: NOTHING_LOST };
  } finally {
    confirmed?.remove();
  }
}

/** What was not written is not there: nothing has to be put back. */
async function failWrites(ground: Ground, tampering: Tampering, only?: Service): Promise<Failed> {
  const paths = regularFiles(ground.dataDir)
    .slice(0, MOST_PATHS)
    .map((file) => join(ground.dataDir, file));
  if (paths.length > 0) {
    for (const service of ground.services) {
      const log = traceLogOf(ground, service);
      rmSync(log, { force: true });
      const wrap = straceCommand({ log, calls: tampering.calls, tampering, paths });
      await service.start(only === undefined || only === service ? wrap : []);
    }
  }
  ground.flood(true);
  if (paths.length > 0 && (await failure(ground))) {
    await ground.afterConfirms(spread(ground.random, 1, ANSWERS), ANSWER_MS);
  }
  await killServices(ground.services);
  const failed = paths.length > 0 ? failures(ground) : [];
  return {
    failed: failed.length,
    lossy: failed.length > 0,
    torn: false,
    failingMs: 0,
    detail: `${told(failed, tampering)}; SIGKILL to all`,
  };
}

async function failure(ground: Ground): Promise<boolean> {
  return until(() => failures(ground).length > 0, WAIT_MS, ground.signal, 10);
}

/** Names of the calls that have failed so far. */
function failures(ground: Ground): string[] {
  return ground.services.flatMap((service) => failedCalls(traceOf(ground, service)));
}

/** Empty as long as strace has not made it. */
function traceOf(ground: Ground, service: Service): string {
  const log = traceLogOf(ground, service);
  return existsSync(log) ? readFileSync(log, 'latin1') : '';
}

function told(failed: readonly string[], { what, when }: Tampering): string {
  const calls = [...new Set(failed)].sort().join(', ');
  return `${what.slice('error='.length)} from ${failed.length} calls of ${calls} (each thread's ${when})`;
}

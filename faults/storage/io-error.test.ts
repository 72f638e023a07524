import { spawnSync } from 'node:child_process';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { type SyscallPoint, syscallPointFaults } from '../catalogue/syscall-point.js';
import type { Aim, Injection } from '../fault.js';
import { LossWatch } from '../files/loss-watch.js';
import { TestService, testDirectories, testFaultContext, testRandom } from '../fixtures/fault-context.js';
import { Writer } from '../fixtures/writer.js';
import { killServices } from '../injection.js';
import { straceAvailability } from '../programs.js';
import { SYNC_CALLS, WRITE_CALLS } from '../tracing/call-kinds.js';
import { SyncSites } from '../tracing/sync-sites.js';
import { until } from '../waiting.js';
import { failCalls, ioError } from './io-error.js';

const lastOf = <T>(items: readonly T[]): T => {
  const last = items[items.length - 1];
  if (last === undefined) throw new Error('there is nothing to pick');
  return last;
};

/** Returns the numbers of the records in a part of the file, as text. */
const recordsIn = (bytes: Buffer) => bytes.toString('latin1').match(/\d+(?= )/g) ?? [];

/**
 * Runs one injection. Returns the confirmed records that the file no longer holds, and the result of the
 * injection.
 */
async function injected(
  seed: number,
  goesOn: boolean,
  /** The kind of calls that fail (the seed determines the rest), or one system call of the writer. */
  what: readonly string[] | SyscallPoint,
): Promise<{ lost: number[]; injection: Injection; hit: boolean; detail: string }> {
  const { remove, ...directories } = testDirectories();
  const writer = new Writer(join(directories.dataDir, 'log'), join(directories.scratchDir, 'said'), goesOn);
  const random = testRandom(seed);
  const chosen = new Map([[3, Number(what === SYNC_CALLS)]]);
  // Revert all unsynced sectors: if only a part were reverted, that part might not have been confirmed.
  if ('nth' in what) chosen.set(5, 0);
  const context = testFaultContext({
    ...directories,
    services: [writer.service],
    messageFiles: ['log'],
    losses: new LossWatch(directories.dataDir, recordsIn),
    random: { ...random, int: (below) => chosen.get(below) ?? random.int(below) },
    waitForConfirms: (...limits) => writer.waitForConfirms(...limits),
  });
  try {
    const fault = 'nth' in what ? syscallPointFaults([what]).get('io-error') : ioError;
    if (fault === undefined) throw new Error('there is no such fault');
    const injection = await fault.inject(context);
    const { hit, detail } = injection;
    return { lost: writer.lost(), injection, hit, detail };
  } finally {
    await killServices([writer.service]);
    remove();
  }
}

const skip = straceAvailability().available ? false : 'strace is not installed';

for (const [name, kind] of [
  ['syncs', SYNC_CALLS],
  ['writes', WRITE_CALLS],
] as const) {
  t.test(`a program that stops when its ${name} fail loses no confirmed record`, { skip }, async (t) => {
    const { lost, hit, detail } = await injected(1, false, kind);
    t.ok(hit, detail);
    t.match(detail, /^(EIO|ENOSPC) from \d+ calls of (fdatasync|write|pwrite64)/);
    t.same(lost, [], detail);
  });

  t.test(`a program that ignores errors of its ${name} loses confirmed records`, { skip }, async (t) => {
    for (let seed = 1; seed <= 5; seed++) {
      const { lost, hit, detail } = await injected(seed, true, kind);
      if (!hit || lost.length === 0) continue;
      t.pass(`${lost.length} records: ${detail}`);
      return;
    }
    t.fail('no seed lost a confirmed record');
  });
}

t.test('a program that ignores any one failed sync loses a confirmed record', { skip }, async (t) => {
  for (const nth of [1, 2, 3, 7]) {
    const point = { service: 'writer', kind: 'sync', nth, what: 'EIO' } as const;
    const { lost, hit, detail } = await injected(nth, true, point);
    t.ok(hit, detail);
    t.ok(lost.length > 0, `the ${nth}. sync: ${detail}`);
  }
});

t.test(
  'the injection names the call that failed, its file, and the records that the file lost',
  { skip },
  async (t) => {
    const point = { service: 'writer', kind: 'sync', nth: 3, what: 'EIO' } as const;
    const { lost, injection } = await injected(3, true, point);
    const { failed, lostFiles } = injection;
    t.match(failed?.calls, [{ service: 'writer', call: 'fdatasync', path: 'log', error: 'EIO', count: 1 }]);
    t.ok((failed?.sinceMs ?? -1) >= 0);
    t.match(lostFiles, [{ file: 'log' }]);
    const named = new Set(lostFiles?.flatMap(({ messages }) => messages));
    t.ok(lost.length > 0 && lost.every((record) => named.has(`${record}`)), `${lost} of ${[...named]}`);
  },
);

t.test(
  'an injection aims at a sync that has not failed in the run, and a replay repeats its aim',
  { skip },
  async (t) => {
    const inject = async (aim: Aim | undefined, syncSites: SyncSites | undefined) => {
      const { remove, ...directories } = testDirectories();
      const writer = new Writer(join(directories.dataDir, 'log'), join(directories.scratchDir, 'said'), true);
      const context = testFaultContext({
        ...directories,
        ...{ services: [writer.service], messageFiles: ['log'], aim, syncSites },
        waitForConfirms: (...limits) => writer.waitForConfirms(...limits),
      });
      try {
        return await ioError.inject(context);
      } finally {
        await killServices([writer.service]);
        remove();
      }
    };
    const sites = new SyncSites();
    const { aim, failed } = await inject(undefined, sites);
    t.match(aim, { calls: 'sync', position: Number });
    t.equal(failed?.calls[0]?.call, 'fdatasync');
    t.same((await inject(undefined, sites)).aim, undefined, 'the only sync of the program has failed');
    const repeated = await inject({ calls: 'sync', position: 3 }, undefined);
    t.same(repeated.aim, { calls: 'sync', position: 3 });
    t.match(repeated.detail, /each thread's 3\b/);
  },
);

/**
 * Program that syncs its file 30 times at its start, and waits for ever when one of these syncs fails. Then it appends
 * records, and confirms each one whether its sync failed or not.
 */
const NEEDS_SYNCS_AT_START = `
import os, sys, time
log = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_APPEND)
said = os.open(sys.argv[2], os.O_RDWR | os.O_APPEND)
for _ in range(30):
    os.write(log, b'%-511s\\n' % b'start')
    try: os.fdatasync(log)
    except OSError: time.sleep(1000)
number = 0
while True:
    os.write(log, b'%-511d\\n' % number)
    try: os.fdatasync(log)
    except OSError: pass
    os.write(said, b'.')
    number += 1
    time.sleep(0.005)
`;

/**
 * Program that appends records and confirms each one after its sync. When a sync fails, it deletes all records. It also
 * makes a call that a trace does not show, so that the trace allows no conclusion.
 */
const DELETES = `
import ctypes, os, platform, sys, time
io_setup, io_submit = (206, 209) if platform.machine() == 'x86_64' else (0, 2)
ring = ctypes.c_ulong(0)
system_call = ctypes.CDLL(None).syscall
system_call(io_setup, 1, ctypes.byref(ring))
system_call(io_submit, ring, 0, None)
log = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_APPEND)
said = os.open(sys.argv[2], os.O_RDWR | os.O_APPEND)
number = 0
while True:
    os.write(log, b'%-511d\\n' % number)
    try: os.fdatasync(log)
    except OSError: os.ftruncate(log, 0)
    os.write(said, b'.')
    number += 1
    time.sleep(0.005)
`;
const noPython = spawnSync('python3', ['-V']).status === 0 ? skip : 'python3 is not installed';

t.test(
  'a sync that fails before the first confirmation fails again later, so that a confirmation rests on it',
  { skip: noPython },
  async (t) => {
    const { remove, ...directories } = testDirectories();
    const [log, said] = [join(directories.dataDir, 'log'), join(directories.scratchDir, 'said')];
    writeFileSync(said, '');
    const service = new TestService('a', ['python3', '-c', NEEDS_SYNCS_AT_START, log, said]);
    t.teardown(async () => {
      await killServices([service]);
      remove();
    });
    const random = testRandom(1);
    const context = testFaultContext({
      ...directories,
      services: [service],
      messageFiles: ['log'],
      // Syncs fail from the first position of each try on, and all unsynced sectors are reverted.
      random: { ...random, real: () => 0, int: (below) => new Map([[3, 1]]).get(below) ?? 0, pick: lastOf },
      waitForConfirms: async (count, timeoutMs) => {
        const goal = statSync(said).size + count;
        return (await until(() => statSync(said).size >= goal, timeoutMs)) ? 'reached' : 'timeout';
      },
    });
    const { hit, detail } = await ioError.inject(context);
    t.ok(hit, detail);
    t.ok(Number(/each thread's (\d+)\+/.exec(detail)?.[1]) > 30, 'the first 30 syncs belong to the start');
    const records = recordsIn(readFileSync(log));
    t.ok(records.length < statSync(said).size, 'bytes of confirmed records are gone');
  },
);

t.test(
  'messages that a target destroyed itself count also when its trace allows no conclusion',
  { skip: noPython },
  async (t) => {
    const { remove, ...directories } = testDirectories();
    const [log, said] = [join(directories.dataDir, 'log'), join(directories.scratchDir, 'said')];
    writeFileSync(said, '');
    const service = new TestService('a', ['python3', '-c', DELETES, log, said]);
    t.teardown(async () => {
      await killServices([service]);
      remove();
    });
    await service.start();
    t.ok(await until(() => statSync(said).size >= 20, 20_000), 'it works');
    const context = testFaultContext({
      ...directories,
      services: [service],
      losses: new LossWatch(directories.dataDir, (bytes) => recordsIn(bytes)),
      waitForConfirms: async (count, timeoutMs) => {
        const goal = statSync(said).size + count;
        return (await until(() => statSync(said).size >= goal, timeoutMs)) ? 'reached' : 'timeout';
      },
    });
    const result = await failCalls(context, { calls: SYNC_CALLS, what: 'error=EIO', when: '3+' });
    t.match(result.detail, /the target writes through io_submit, which a trace does not show$/);
    t.match(result.destroyedFiles, [{ file: 'log' }]);
    t.ok(result.destroyedFiles[0]?.messages.includes('0'), 'the first record is gone');
    t.match(result, { lostData: true, torn: false, lostFiles: [] });
  },
);

/** Checks that a process is the sleep and not its strace; it may have exited since it was listed. */
function sleeps(pid: number): boolean {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trim() === 'sleep';
  } catch {
    return false;
  }
}

t.test('a program that neither syncs nor writes makes the injection a miss', { skip }, async (t) => {
  const { remove, ...directories } = testDirectories();
  t.teardown(remove);
  const service = new TestService('idle', ['/bin/sleep', '60']);
  t.teardown(() => killServices([service]));
  const aborted = new AbortController();
  const context = testFaultContext({ ...directories, services: [service], signal: aborted.signal });
  const missed = ioError.inject(context);
  t.ok(await until(() => service.pids().some(sleeps), 20_000));
  aborted.abort();
  const { hit, detail } = await missed;
  t.equal(hit, false);
  t.match(detail, /^(EIO|ENOSPC) at call \S+ of .*: not reached in \d+ ms/);
});

import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, statfsSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { FaultContext, Injection } from '../fault.js';
import { TestService, testDirectories, testFaultContext, testRandom } from '../fixtures/fault-context.js';
import { killServices } from '../injection.js';
import { clock, removeFaketimeFiles } from '../process/clock.js';
import { sleep, until } from '../waiting.js';
import { diskFull, FILESYSTEM_LIMIT_BYTES } from './disk-full.js';
import { full } from './full.js';

const clockIs = await clock.available();
const diskIs = await diskFull.available();

t.test(
  'clock moves the wall clock of a service but not its monotonic clock, and heal sets it right',
  { skip: !clockIs.available },
  async (t) => {
    const { remove, ...directories } = testDirectories();
    const file = join(directories.scratchDir, 'times');
    const source = `setInterval(() => require('node:fs').writeFileSync(${JSON.stringify(file)}, JSON.stringify([Date.now(), performance.now()])), 5)`;
    const service = new TestService('a', [process.execPath, '-e', source]);
    const pids = new Set<number>();
    t.teardown(async () => {
      await killServices([service]);
      for (const pid of pids) removeFaketimeFiles(pid);
      remove();
    });
    const times = (): [number, number] => {
      try {
        return JSON.parse(readFileSync(file, 'utf8')) as [number, number];
      } catch {
        return [Date.now(), 0];
      }
    };
    await service.start();
    const context = testFaultContext({ ...directories, services: [service], random: testRandom(2) });
    const injection = await clock.inject(context);
    for (const pid of service.pids()) pids.add(pid);
    t.equal(injection.hit, true, injection.detail);
    const offsetS = Number(/(-?\d+) s$/.exec(injection.detail)?.[1]);
    const about = (ms: number) => Math.abs(times()[0] - Date.now() - ms) < 900;
    t.ok(await until(() => about(offsetS * 1000), 10_000), `off by ${offsetS} s`);
    t.ok(times()[1] < 60_000, 'the monotonic clock counts from the start');
    await clock.heal(context);
    t.ok(await until(() => about(0), 10_000), 'right again');
    for (const pid of service.pids()) pids.add(pid);
  },
);

t.test('full hits when the target rejects messages, and heal ends the flood', async (t) => {
  const { remove, ...directories } = testDirectories();
  t.teardown(remove);
  const floods: boolean[] = [];
  const context = (outcome: 'reached' | 'timeout') =>
    testFaultContext({
      ...directories,
      flood: (on) => void floods.push(on),
      waitForRejections: async () => outcome,
    });
  t.match(await full.inject(context('reached')), { hit: true, scope: 'none' });
  await full.heal(context('reached'));
  t.match(await full.inject(context('timeout')), { hit: false });
  await full.heal(context('timeout'));
  t.same(floods, [true, false, true, false]);
});

t.test(
  'disk-full leaves no free space on the filesystem, and heal restores it',
  { skip: !diskIs.available },
  async (t) => {
    const { dataDir, scratchDir, remove } = testDirectories();
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${FILESYSTEM_LIMIT_BYTES}`, 'plugpull-test', dataDir]);
    t.teardown(() => {
      execFileSync('umount', [dataDir]);
      remove();
    });
    writeFileSync(join(dataDir, 'kept'), 'x'.repeat(100_000));
    const noRoom: string[] = [];
    const context: FaultContext = testFaultContext({
      dataDir,
      scratchDir,
      waitForRejections: async () => {
        try {
          writeFileSync(join(dataDir, 'more'), 'x'.repeat(1_000_000));
        } catch (error) {
          if (error instanceof Error && 'code' in error) noRoom.push(String(error.code));
        }
        return 'timeout';
      },
    });
    t.match(await diskFull.inject(context), { hit: true });
    t.same(noRoom, ['ENOSPC']);
    await diskFull.heal(context);
    await diskFull.heal(context);
    t.ok(statfsSync(dataDir).bavail > 0);
    writeFileSync(join(dataDir, 'more'), 'x'.repeat(1_000_000));
    t.ok(existsSync(join(dataDir, 'kept')));
  },
);

/**
 * Program that writes to a file without a pause until the disk is full. Then it exits; with a second argument it empties
 * the file a moment later instead, and begins anew.
 */
const GROWING = `
const fs = require('node:fs');
const [file, goesOn] = process.argv.slice(1);
const fd = fs.openSync(file, 'a');
const pause = new Int32Array(new SharedArrayBuffer(4));
const fill = () => {
  for (;;) {
    // Grow by some 40 MB each second: fast enough to grow in any moment, and slow enough to last.
    Atomics.wait(pause, 0, 0, 0.1);
    try { fs.writeSync(fd, Buffer.alloc(4096, 1)); } catch (error) {
      if (!goesOn) process.exit(1);
      return setTimeout(() => { fs.ftruncateSync(fd, 0); setTimeout(fill, 50); }, 50);
    }
  }
};
fill();
`;

/** Program that allocates its file once, and then writes to it again and again in place. */
const IN_PLACE = `
const fs = require('node:fs');
const fd = fs.openSync(process.argv[1], 'w');
fs.writeSync(fd, Buffer.alloc(2e6, 1));
let at = 0;
setInterval(() => fs.writeSync(fd, Buffer.alloc(4096, 2), 0, 4096, 4096 * (at++ % 400)), 1);
`;

/** Injects disk-full into a program that grows, on a filesystem that holds some data. */
async function fillDisk(
  t: Test,
  source: string,
  args: string[] = [],
  rejects?: FaultContext['waitForRejections'],
): Promise<Injection> {
  const { dataDir, scratchDir, remove } = testDirectories();
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1g', 'plugpull-test', dataDir]);
  const file = join(dataDir, 'log');
  const service = new TestService('a', [process.execPath, '-e', source, file, ...args]);
  t.teardown(async () => {
    await killServices([service]);
    execFileSync('umount', [dataDir]);
    remove();
  });
  await service.start();
  t.ok(await until(() => (statSync(file, { throwIfNoEntry: false })?.size ?? 0) > 1e6, 20_000), 'it grows');
  const context = testFaultContext({
    ...{ dataDir, scratchDir, services: [service] },
    waitForRejections:
      rejects ??
      (async (_, timeoutMs) => {
        await sleep(timeoutMs, new AbortController().signal);
        return 'timeout';
      }),
  });
  try {
    return await diskFull.inject(context);
  } finally {
    await diskFull.heal(context);
  }
}

t.test(
  'disk-full hits a target that grows while the filesystem shrinks, and that ends when it is full',
  { skip: !diskIs.available },
  async (t) => {
    const injection = await fillDisk(t, GROWING);
    t.match(injection, { hit: true, scope: 'all-processes', services: ['a'] }, injection.detail);
    t.match(injection.detail, /a ended by itself$/);
  },
);

t.test('disk-full hits a target that takes a failed write back', { skip: !diskIs.available }, async (t) => {
  const injection = await fillDisk(t, GROWING, ['goes on']);
  t.match(injection, { hit: true, scope: 'all-processes', services: ['a'] }, injection.detail);
  t.match(injection.detail, /flooded; SIGKILL to all/);
});

t.test(
  'disk-full misses a target that needs no more space, and hits it when it rejects',
  { skip: !diskIs.available },
  async (t) => {
    const missed = await fillDisk(t, IN_PLACE);
    t.match(missed, { hit: false, scope: 'none', services: [] }, missed.detail);
    t.match(missed.detail, /^nothing was rejected, and at least \d+ bytes were free all the time$/);
    // A target that allocates more than is left gets ENOSPC although some space is free.
    const counts: number[] = [];
    const rejecting = await fillDisk(t, IN_PLACE, [], async (count) => {
      counts.push(count);
      return counts.length === 1 ? 'reached' : 'timeout';
    });
    t.match(rejecting, { hit: true, services: ['a'] }, rejecting.detail);
    t.match(rejecting.detail, /flooded until it rejected with \d+ bytes free; SIGKILL/);
    t.equal(counts[0], 1, 'one rejection is enough');
  },
);

t.test(
  'the shared memory that libfaketime leaves of one killed process is removed, and that of no other',
  async (t) => {
    // A number larger than any process id of Linux.
    const gone = 2 ** 30 + process.pid;
    const files = (pid: number) => [`/dev/shm/faketime_shm_${pid}`, `/dev/shm/sem.faketime_sem_${pid}`];
    t.teardown(() => removeFaketimeFiles(gone + 1));
    for (const file of [...files(gone), ...files(gone + 1)]) writeFileSync(file, '');
    removeFaketimeFiles(gone);
    removeFaketimeFiles(gone);
    t.notOk(files(gone).some((file) => existsSync(file)));
    t.ok(files(gone + 1).every((file) => existsSync(file)));
  },
);

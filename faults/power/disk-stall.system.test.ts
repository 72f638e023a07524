import { join } from 'node:path';
import t from 'tap';
import type { Random } from '../fault.js';
import { testDirectories, testFaultContext, testRandom } from '../fixtures/fault-context.js';
import { Writer } from '../fixtures/writer.js';
import { killServices } from '../injection.js';
import { sleep } from '../waiting.js';
import { diskStall } from './disk-stall.js';
import { skipReason, type TestDisk, withDisk } from './fixtures/disk.js';

const skip = skipReason();

/** Draws the shortest stall, and its end: 0 is a power cut, 1 lets the disk go on. */
function shortStall(end: 0 | 1): Random {
  return { ...testRandom(1), real: () => 0, int: (below) => (below === 2 ? end : 0) };
}

/** Stalls the disk of a queue in one file. Resolves to the result, and to how the confirmations went on. */
async function stallWriter({ disk, mountPoint }: TestDisk, end: 0 | 1) {
  const { dataDir, scratchDir, remove } = testDirectories();
  const writer = new Writer(join(mountPoint, 'queue'), join(scratchDir, 'said'), false);
  try {
    await writer.service.start();
    await writer.waitForConfirms(5, 20_000);
    const counts: number[] = [];
    const context = testFaultContext({
      dataDir,
      scratchDir,
      services: [writer.service],
      powerDisk: disk,
      random: shortStall(end),
      waitForConfirms: async (count, timeoutMs) => {
        counts.push(writer.confirmed().length);
        const result = await writer.waitForConfirms(count, timeoutMs);
        counts.push(writer.confirmed().length);
        return result;
      },
    });
    const injection = await diskStall.inject(context);
    await diskStall.heal(context);
    const live = writer.service.pids().length;
    await killServices([writer.service]);
    return { injection, live, counts, lost: writer.lost() };
  } finally {
    await killServices([writer.service]);
    remove();
  }
}

t.test('a queue that syncs confirms nothing during a stall, and goes on after it', { skip }, async (t) => {
  await withDisk(async (disk) => {
    const { injection, live, counts, lost } = await stallWriter(disk, 1);
    t.match(injection, { hit: true, scope: 'none', services: ['writer'] }, injection.detail);
    t.match(injection.detail, /the disk answered nothing for \d+ ms, writer waited for it$/);
    const [atGrace = 0, atEnd = 0, , afterwards = 0] = counts;
    t.equal(atEnd, atGrace, 'nothing was confirmed during the stall');
    t.ok(afterwards > atEnd, 'the queue confirms again');
    t.ok(live > 0, 'it was not killed');
    t.same(lost, []);
  });
});

t.test('a stall that ends with a power cut loses nothing that was synced before', { skip }, async (t) => {
  await withDisk(async (disk) => {
    const { injection, live, lost } = await stallWriter(disk, 0);
    t.match(injection, { hit: true, scope: 'machine', services: ['writer'] }, injection.detail);
    t.match(injection.detail, /writer waited for it; power cut after/);
    t.ok(injection.failingMs >= 1000, 'the stall counts as a time in which nothing was stored');
    t.equal(live, 0);
    t.same(lost, []);
  });
});

t.test('a stall is renewed for the watchdog, and can be ended twice', { skip }, async (t) => {
  let stopped = 0;
  await withDisk(
    async ({ disk }) => {
      await disk.stall.begin();
      await disk.stall.begin();
      await sleep(10, new AbortController().signal);
      t.equal(stopped, 2);
      await disk.stall.end();
      await disk.stall.end();
      t.equal(stopped, 0);
    },
    undefined,
    {
      stopping: () => {
        stopped += 1;
      },
      resumed: () => {
        stopped = 0;
      },
    },
  );
});

t.test('a stall without such a disk, or without a process, is a miss', async (t) => {
  const { dataDir, scratchDir, remove } = testDirectories();
  const context = testFaultContext({ dataDir, scratchDir });
  t.match(await diskStall.inject(context), { hit: false, detail: /cannot stop/ });
  await diskStall.heal(context);
  remove();
});

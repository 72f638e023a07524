import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { TestService, testDirectories, testGround, testRandom } from './fixtures/ground.js';
import { Writer } from './fixtures/writer.js';
import { killServices, straceAvailability } from './injections.js';
import { ioError } from './io-error.js';
import { SYNC_CALLS, WRITE_CALLS } from './syscalls/kinds.js';
import { until } from './waiting.js';

/** Confirmed records that the file does not hold after one injection, and what that said. */
async function injected(
  seed: number,
  kind: readonly string[],
  goesOn: boolean,
): Promise<{ lost: number[]; hit: boolean; detail: string }> {
  const { remove, ...directories } = testDirectories();
  const writer = new Writer(join(directories.dataDir, 'log'), join(directories.scratchDir, 'said'), goesOn);
  const random = testRandom(seed);
  const ground = testGround({
    ...directories,
    services: [writer.service],
    messageFiles: ['log'],
    // The kind is the test's, all else the seed's.
    random: { ...random, int: (below) => (below === 3 ? Number(kind === SYNC_CALLS) : random.int(below)) },
    afterConfirms: (...limits) => writer.afterConfirms(...limits),
  });
  try {
    const { hit, detail } = await ioError.inject(ground);
    return { lost: writer.lost(), hit, detail };
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
  t.test(`who stops at an error of its ${name} has lost nothing that it confirmed`, { skip }, async (t) => {
    const { lost, hit, detail } = await injected(1, kind, false);
    t.ok(hit, detail);
    t.match(detail, /^(EIO|ENOSPC) from \d+ calls of (fdatasync|write|pwrite64)/);
    t.same(lost, [], detail);
  });

  t.test(`who goes on after an error of its ${name} has lost what it confirmed`, { skip }, async (t) => {
    for (let seed = 1; seed <= 5; seed++) {
      const { lost, hit, detail } = await injected(seed, kind, true);
      if (!hit || lost.length === 0) continue;
      t.pass(`${lost.length} records: ${detail}`);
      return;
    }
    t.fail('none of the seeds showed it');
  });
}

/** Not strace, of which a process may have ended since it was listed. */
function sleeps(pid: number): boolean {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trim() === 'sleep';
  } catch {
    return false;
  }
}

t.test('a program that neither syncs nor writes is missed, and says so', { skip }, async (t) => {
  const { remove, ...directories } = testDirectories();
  t.teardown(remove);
  const service = new TestService('idle', ['/bin/sleep', '60']);
  t.teardown(() => killServices([service]));
  const aborted = new AbortController();
  const ground = testGround({ ...directories, services: [service], signal: aborted.signal });
  const missed = ioError.inject(ground);
  t.ok(await until(() => service.pids().some(sleeps), 20_000));
  aborted.abort();
  const { hit, detail } = await missed;
  t.equal(hit, false);
  t.match(detail, /^not reached in \d+ ms each: (EIO|ENOSPC) at call/);
});

import { spawnSync } from 'node:child_process';
import { statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { TestService, testDirectories, testFaultContext, testRandom } from '../fixtures/fault-context.js';
import { Writer } from '../fixtures/writer.js';
import { killServices } from '../injection.js';
import { clock } from '../process/clock.js';
import { straceAvailability } from '../programs.js';
import { until } from '../waiting.js';
import { tear } from './tear.js';

const noStrace = straceAvailability().available ? false : 'strace is not installed';
const RING_WRITER = fileURLToPath(new URL('../../../faults/fixtures/ring-writer.c', import.meta.url));
const MOVES_LOG = `
process.chdir(process.argv[1]);
const fs = require('node:fs');
const said = process.argv[2];
const log = fs.openSync('log.new', 'w');
fs.renameSync('log.new', 'log');
setInterval(() => {
  fs.writeSync(log, 'x'.repeat(512));
  fs.fdatasyncSync(log);
  fs.appendFileSync(said, '.');
}, 5);
`;

t.test(
  'tear hits a program that syncs, and takes nothing that it has confirmed',
  { skip: noStrace },
  async (t) => {
    const { remove, ...directories } = testDirectories();
    const writer = new Writer(join(directories.dataDir, 'log'), join(directories.scratchDir, 'said'), false);
    t.teardown(async () => {
      await killServices([writer.service]);
      remove();
    });
    const context = testFaultContext({
      ...directories,
      services: [writer.service],
      waitForConfirms: (...limits) => writer.waitForConfirms(...limits),
    });
    const { hit, scope, detail } = await tear.inject(context);
    t.match({ hit, scope }, { hit: true, scope: 'machine' }, detail);
    t.same(writer.lost(), [], 'the writer confirms only what it has synced');
  },
);

/** Runs one program that reports each confirmation by one byte in `said`, and injects a fault. */
async function injectInto(t: Test, fault: typeof tear, command: (dataDir: string, said: string) => string[]) {
  const { remove, ...directories } = testDirectories();
  const said = join(directories.scratchDir, 'said');
  writeFileSync(said, '');
  const service = new TestService('a', command(directories.dataDir, said));
  t.teardown(async () => {
    await killServices([service]);
    remove();
  });
  const context = testFaultContext({
    ...directories,
    services: [service],
    random: testRandom(4),
    waitForConfirms: async (count, timeoutMs) => {
      const goal = statSync(said).size + count;
      return (await until(() => statSync(said).size >= goal, timeoutMs)) ? 'reached' : 'timeout';
    },
  });
  await service.start();
  t.ok(await until(() => statSync(said).size > 0, 20_000), 'it works');
  const injection = await fault.inject(context);
  await fault.heal(context);
  return injection;
}

t.test(
  'tear hits a program that changes its folder and renames by relative paths',
  { skip: noStrace },
  async (t) => {
    const injection = await injectInto(t, tear, (...args) => [process.execPath, '-e', MOVES_LOG, ...args]);
    t.equal(injection.hit, true, injection.detail);
    t.match(injection.detail, / in log$/);
  },
);

/** Program that confirms what it writes to a file without a sync. It truncates the file at its start. */
const CACHES = `
const fs = require('node:fs');
const [dir, said, reads] = process.argv.slice(1);
const path = dir + '/cache';
if (reads && fs.existsSync(path)) fs.readFileSync(path);
const cache = fs.openSync(path, 'w');
setInterval(() => {
  fs.writeSync(cache, 'x'.repeat(512));
  fs.appendFileSync(said, '.');
}, 5);
`;

t.test(
  'tear misses when only a file changed that the target truncates unread',
  { skip: noStrace },
  async (t) => {
    const injection = await injectInto(t, tear, (...args) => [process.execPath, '-e', CACHES, ...args]);
    t.equal(injection.hit, false, injection.detail);
    t.match(injection.detail, /only files that the target makes anew at each start were unsynced: cache$/);
  },
);

t.test('tear hits when that file was read before it was truncated', { skip: noStrace }, async (t) => {
  const injection = await injectInto(t, tear, (...args) => [
    process.execPath,
    '-e',
    CACHES,
    ...args,
    'reads',
  ]);
  t.equal(injection.hit, true, injection.detail);
  t.match(injection.detail, / in cache$/);
});

const ring = compileRingWriter();
const noRing = noStrace !== false ? noStrace : 'why' in ring ? ring.why : false;

t.test(
  'a static program that writes through io_uring makes tear and clock a miss, with the reason',
  { skip: noRing },
  async (t) => {
    if ('why' in ring) throw new Error(ring.why);
    const writer = (dataDir: string, said: string) => [ring.program, join(dataDir, 'log'), said];
    const torn = await injectInto(t, tear, writer);
    t.match(torn, { hit: false, detail: /the target ended; it asked for io_uring/ });
    if (!(await clock.available()).available) return;
    const moved = await injectInto(t, clock, writer);
    t.match(moved, { hit: false, detail: /libfaketime was not loaded$/ });
  },
);

/** Compiles the program. It cannot be used where there is no compiler, no static library or no io_uring. */
function compileRingWriter(): { program: string } | { why: string } {
  const { scratchDir, remove } = testDirectories();
  t.teardown(remove);
  const program = join(scratchDir, 'ring-writer');
  const { status } = spawnSync('cc', ['-static', '-O2', '-o', program, RING_WRITER]);
  if (status !== 0) return { why: 'no C compiler with static libraries is installed' };
  // It works until it is stopped. It ends by itself when the kernel gives it no ring.
  const files = [join(scratchDir, 'log'), join(scratchDir, 'said')];
  const alone = spawnSync(program, files, { timeout: 500, killSignal: 'SIGKILL' });
  return alone.signal === 'SIGKILL' ? { program } : { why: 'the kernel has no io_uring' };
}

import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { LossWatch } from '../files/loss-watch.js';
import { TestService, testDirectories, testFaultContext, testRandom } from '../fixtures/fault-context.js';
import { Writer } from '../fixtures/writer.js';
import { killServices } from '../injection.js';
import { clock } from '../process/clock.js';
import { straceAvailability } from '../programs.js';
import { sleep, until } from '../waiting.js';
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

/** Upper bound of the injections of a test that needs a hit. */
const MAX_INJECTIONS = 10;

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
    let injection = await tear.inject(context);
    for (let count = 1; !injection.hit && count < MAX_INJECTIONS; count++)
      injection = await tear.inject(context);
    t.match(injection, { hit: true, scope: 'machine' }, injection.detail);
    t.same(writer.lost(), [], 'the writer confirms only what it has synced');
  },
);

/** Program that confirms numbered records which it has not synced. */
const CONFIRMS_UNSYNCED = `
const fs = require('node:fs');
const [dir, said] = process.argv.slice(1);
const log = fs.openSync(dir + '/log', 'a');
setInterval(() => {
  fs.writeSync(log, ('id' + fs.statSync(said).size + ';').padEnd(512, '.'));
  fs.appendFileSync(said, '.');
}, 5);
`;

t.test(
  'the injection of tear names the file that lost records, and the records that it lost',
  { skip: noStrace },
  async (t) => {
    let dataDir = '';
    const { hit, detail, lostFiles } = await injectUntilHit(
      t,
      tear,
      (...args) => {
        dataDir = args[0];
        return [process.execPath, '-e', CONFIRMS_UNSYNCED, ...args];
      },
      { losses: (dir) => new LossWatch(dir, (bytes) => bytes.toString('latin1').match(/id\d+;/g) ?? []) },
    );
    t.equal(hit, true, detail);
    const [sectors] = /\d+(?= of \d+ in log$)/.exec(detail) ?? [];
    t.match(lostFiles, [{ file: 'log', nameAfter: null }]);
    t.equal(lostFiles?.[0]?.messages.length, Number(sectors), detail);
    const left = readFileSync(join(dataDir, 'log'), 'latin1');
    for (const id of lostFiles?.[0]?.messages ?? []) t.notOk(left.includes(id), `${id} is gone`);
  },
);

/** Program that makes a child for each record. The child stores the record in a new file, syncs it, and confirms it. */
const FORKS = `
cd "$1"; said="$2"; n=0
while :; do
  n=$((n + 1))
  ( printf %512s x | dd of=rec-$$-$n bs=512 conv=fsync iflag=fullblock && echo rec-$$-$n >> "$said.names" && printf . >> "$said" ) &
  wait
done
`;

/** A service whose kill comes late: a process that is not stopped has time to go on. */
class KilledLate extends TestService {
  override async signal(signal: NodeJS.Signals): Promise<number> {
    if (signal === 'SIGKILL') await sleep(200, new AbortController().signal);
    return super.signal(signal);
  }
}

t.test(
  'tear takes nothing that a child confirms which was forked just before the stop',
  { skip: noStrace },
  async (t) => {
    let [dataDir, said] = ['', ''];
    const { hit, detail } = await injectUntilHit(
      t,
      tear,
      (...args) => {
        [dataDir, said] = args;
        return ['/bin/sh', '-c', FORKS, 'sh', ...args];
      },
      { service: KilledLate },
    );
    t.equal(hit, true, detail);
    const names = readFileSync(`${said}.names`, 'latin1').split('\n').slice(0, -1);
    t.ok(names.length > 1, `${names.length} records were confirmed`);
    const holds = (name: string) =>
      existsSync(join(dataDir, name)) && readFileSync(join(dataDir, name), 'latin1').trim() === 'x';
    t.same(
      names.filter((name) => !holds(name)),
      [],
      detail,
    );
  },
);

/**
 * Injects until the fault hits, each time into a new program. On a busy machine most of the time passes in starts of
 * programs, while nothing is unsynced.
 */
async function injectUntilHit(...args: Parameters<typeof injectInto>): ReturnType<typeof injectInto> {
  let injection = await injectInto(...args);
  for (let count = 1; !injection.hit && count < MAX_INJECTIONS; count++)
    injection = await injectInto(...args);
  return injection;
}

/** Runs one program that reports each confirmation by one byte in `said`, and injects a fault. */
async function injectInto(
  t: Test,
  fault: typeof tear,
  command: (dataDir: string, said: string) => string[],
  {
    service: Service = TestService,
    losses,
  }: { service?: typeof TestService; losses?: (dataDir: string) => LossWatch } = {},
) {
  const { remove, ...directories } = testDirectories();
  const said = join(directories.scratchDir, 'said');
  writeFileSync(said, '');
  const service = new Service('a', command(directories.dataDir, said));
  t.teardown(async () => {
    await killServices([service]);
    remove();
  });
  const context = testFaultContext({
    ...directories,
    services: [service],
    losses: losses?.(directories.dataDir),
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
    const injection = await injectUntilHit(t, tear, (...args) => [
      process.execPath,
      '-e',
      MOVES_LOG,
      ...args,
    ]);
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
  const injection = await injectUntilHit(t, tear, (...args) => [
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

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { straceAvailability } from '../programs.js';
import { filesWrittenOutside } from './written-outside.js';

/** Time limit far above what strace needs: the first write ends the trace. */
const GENEROUS_MS = 60_000;

/** Starts a program that says `ready` when it has run `setUp`, and waits for that. */
async function start(t: { teardown(kill: () => void): void }, setUp: string): Promise<ChildProcess> {
  const child = spawn(
    process.execPath,
    ['-e', `const fs = require('node:fs'); ${setUp}; console.log('ready');`],
    {
      // An inherited stderr could be a file, which would be named too.
      stdio: ['ignore', 'pipe', 'ignore'],
    },
  );
  t.teardown(() => child.kill('SIGKILL'));
  await once(child.stdout, 'data');
  return child;
}

function makePlace(t: { teardown(remove: () => void): void }) {
  const dir = realpathSync(mkdtempSync(join(tmpdir(), 'plugpull-outside-')));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  for (const name of ['data', 'beside', 'logs']) mkdirSync(join(dir, name));
  return { dir, data: join(dir, 'data'), logs: join(dir, 'logs'), log: join(dir, 'trace') };
}

t.test('files that are open for writing outside the directory are named', async (t) => {
  const { dir, data, logs, log } = makePlace(t);
  const open = ['beside/queue.db', 'data/log', 'logs/server.log'].map((name) => join(dir, name));
  const child = await start(
    t,
    `for (const file of ${JSON.stringify(open)}) fs.openSync(file, 'w');
     fs.openSync(${JSON.stringify(join(dir, 'logs/server.log'))}, 'r'); setInterval(() => {}, 1000)`,
  );
  t.same(await filesWrittenOutside([child.pid ?? 0], data, [logs], log), [join(dir, 'beside/queue.db')]);
});

const { available } = straceAvailability();
t.test(
  'a file that is opened only for each write is named by strace, and the process goes on',
  { skip: available ? false : 'strace is not installed' },
  async (t) => {
    const { dir, data, logs, log } = makePlace(t);
    const file = join(dir, 'beside/spool');
    const child = await start(t, `setInterval(() => fs.appendFileSync(${JSON.stringify(file)}, 'x'), 5)`);
    t.same(await filesWrittenOutside([child.pid ?? 0], data, [logs], log, { limitMs: GENEROUS_MS }), [file]);
    t.equal(child.exitCode, null);
    t.equal(child.signalCode, null);
  },
);

t.test(
  'a file that is renamed after each write is named by its new name, also beside a file that stays open',
  { skip: available ? false : 'strace is not installed' },
  async (t) => {
    const { dir, data, logs, log } = makePlace(t);
    const beside = join(dir, 'beside');
    const child = await start(
      t,
      `fs.openSync(${JSON.stringify(join(dir, 'open.log'))}, 'a'); let n = 0;
       for (const name of ['tmp', 'new']) fs.mkdirSync(${JSON.stringify(beside)} + '/' + name);
       setInterval(() => { n++;
         fs.writeFileSync(${JSON.stringify(beside)} + '/tmp/' + n, 'x');
         fs.renameSync(${JSON.stringify(beside)} + '/tmp/' + n, ${JSON.stringify(beside)} + '/new/' + n) }, 5)`,
    );
    const isEnough = (files: readonly string[]) => files.some((file) => file.startsWith(`${beside}/new/`));
    const options = { limitMs: GENEROUS_MS, isEnough };
    const files = await filesWrittenOutside([child.pid ?? 0], data, [logs], log, options);
    t.ok(isEnough(files), files.join());
    t.ok(files.includes(join(dir, 'open.log')), files.join());
  },
);

t.test('a process that is gone names nothing', async (t) => {
  const { data, logs, log } = makePlace(t);
  t.same(await filesWrittenOutside([1 << 23], data, [logs], log), []);
});

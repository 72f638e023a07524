import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import t from 'tap';

const root = fileURLToPath(new URL('../../..', import.meta.url));
const load = (name: string): Promise<unknown> => import(join(root, 'docker/setup', name));

interface Progress {
  say(line: string): void;
  tick(): void;
  during<T>(line: string, describe: (elapsedMs: number) => string, work: () => Promise<T>): Promise<T>;
}
interface Output {
  write(text: string): void;
  isTerminal: boolean;
  columns?: number;
  nowMs(): number;
}
const { Progress } = (await load('progress.mjs')) as { Progress: new (output: Output) => Progress };
const { whyNotInstalled } = (await load('dependencies.mjs')) as {
  whyNotInstalled(root: string): string | undefined;
};
const { takeLock } = (await load('lock.mjs')) as {
  takeLock(path: string, progress: Progress): Promise<{ note(pids: number[]): void; release(): void }>;
};

function directory(t: { teardown(remove: () => void): void }): string {
  const dir = mkdtempSync(join(tmpdir(), 'plugpull-setup-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/** Simulates steps of 60 s in ticks of 500 ms, with a clock of its own; returns the time of each line. */
async function timesOfLines(isTerminal: boolean): Promise<{ times: number[]; output: string }> {
  let nowMs = 0;
  let output = '';
  const times: number[] = [];
  const write = (part: string) => {
    output += part;
    if (part.endsWith('\n')) times.push(nowMs);
  };
  const progress = new Progress({ write, isTerminal, nowMs: () => nowMs, columns: 40 });
  const tick = async () => {
    for (let ticks = 0; ticks < 120; ticks++) {
      nowMs += 500;
      progress.tick();
    }
  };
  await progress.during(
    'installing',
    (elapsedMs) => `step one: ${elapsedMs} ms, and more text than 40 columns`,
    () => progress.during('compiling', (elapsedMs) => `step two: ${elapsedMs} ms`, tick),
  );
  return { times: [...times, nowMs], output };
}

t.test('off a terminal, steps report themselves before 5 s are silent', async (t) => {
  const { times, output } = await timesOfLines(false);
  const gaps = times.slice(1).map((atMs, index) => atMs - (times[index] ?? 0));
  t.ok(Math.max(...gaps) < 5000, `the longest silence is ${Math.max(...gaps)} ms`);
  t.match(output, /step one: \d+ ms, .*; step two: \d+ ms\n/);
  t.ok(!output.includes('\r') && !output.includes('\x1b'), 'nothing is animated');
});

t.test('on a terminal the state is one line that fits, and is gone at the end', async (t) => {
  const { times, output } = await timesOfLines(true);
  t.equal(times.length, 3, 'the first lines of the two steps, and the end');
  const states = output.split('\r\x1b[K').slice(1);
  t.ok(states.length > 100 && states.every((state) => state.length < 40));
  t.equal(states.at(-1), '');
});

const LOCK_FILE = {
  packages: {
    '': { name: 'x' },
    'node_modules/a': { version: '1.0.0', integrity: 'sha512-a' },
    'node_modules/b': { version: '2.0.0', optional: true },
  },
};

function project(t: { teardown(remove: () => void): void }, installed: unknown): string {
  const dir = directory(t);
  mkdirSync(join(dir, 'node_modules/a'), { recursive: true });
  writeFileSync(join(dir, 'node_modules/a/package.json'), '{}');
  writeFileSync(join(dir, 'package-lock.json'), JSON.stringify(LOCK_FILE));
  if (installed !== undefined)
    writeFileSync(join(dir, 'node_modules/.package-lock.json'), JSON.stringify(installed));
  return dir;
}

t.test('packages that npm has installed are accepted by their content', async (t) => {
  const a = { version: '1.0.0', integrity: 'sha512-a', resolved: 'elsewhere' };
  const why = (packages: object) => whyNotInstalled(project(t, { packages }));
  t.equal(why({ 'node_modules/a': a }), undefined, 'an optional package may be missing');
  t.equal(why({ 'node_modules/a': { ...a, version: '1.0.1' } }), 'node_modules/a has another version');
  t.equal(why({ 'node_modules/a': { ...a, integrity: 'sha512-z' } }), 'node_modules/a has another version');
  t.equal(why({}), 'node_modules/a is missing');
  t.equal(why({ 'node_modules/a': a, 'node_modules/c': a }), 'node_modules/c is not in package-lock.json');
  t.equal(whyNotInstalled(project(t, undefined)), 'node_modules is missing or incomplete');
  const removed = project(t, { packages: { 'node_modules/a': a } });
  rmSync(join(removed, 'node_modules/a'), { recursive: true });
  t.equal(whyNotInstalled(removed), 'node_modules/a is missing');
});

t.test('a lock is held by one set-up, and by the programs of a dead one', async (t) => {
  const path = join(directory(t), 'state', 'setup.lock');
  const lines: string[] = [];
  const progress = new Progress({
    write: (line) => void lines.push(line),
    isTerminal: false,
    nowMs: () => Date.now(),
  });
  const program = spawn('sleep', ['600']);
  t.teardown(() => program.kill());
  const first = await takeLock(path, progress);
  first.note([program.pid ?? 0]);
  // As if the set-up had died: its program still writes to node_modules.
  const holders = JSON.parse(readFileSync(path, 'utf8')) as { pid: number }[];
  t.same(
    holders.map(({ pid }) => pid),
    [process.pid, program.pid],
  );
  writeFileSync(path, JSON.stringify(holders.slice(1)));
  let isTaken = false;
  const second = takeLock(path, progress).then((lock) => {
    isTaken = true;
    return lock;
  });
  while (!lines.join('').includes('waiting for its end')) await new Promise((next) => setTimeout(next, 10));
  t.notOk(isTaken);
  program.kill();
  await once(program, 'exit');
  (await second).release();
  t.notOk(existsSync(path));
});

t.test('a lock of a process that is gone is taken over, also when it is damaged', async (t) => {
  const path = join(directory(t), 'setup.lock');
  const progress = new Progress({ write: () => {}, isTerminal: false, nowMs: () => Date.now() });
  // No process has this start time.
  for (const content of [JSON.stringify([{ pid: process.pid, start: '1' }]), 'nonsense', '']) {
    writeFileSync(path, content);
    const lock = await takeLock(path, progress);
    t.match(readFileSync(path, 'utf8'), `"pid":${process.pid}`);
    lock.release();
  }
});

/** Installs the engines of the gate with a PATH on which an apt-get is a script. */
async function installWith(
  t: { teardown(remove: () => void): void },
  apt: string | undefined,
  env: Record<string, string> = {},
): Promise<string> {
  const dir = directory(t);
  const bin = join(dir, 'bin');
  mkdirSync(bin);
  for (const name of ['sh', 'sleep', 'echo']) symlinkSync(`/bin/${name}`, join(bin, name));
  if (apt !== undefined) writeFileSync(join(bin, 'apt-get'), `#!/bin/sh\n${apt}\n`, { mode: 0o755 });
  const source = `
    const { Progress } = await import(${JSON.stringify(join(root, 'docker/setup/progress.mjs'))});
    const { installMissing } = await import(${JSON.stringify(join(root, 'docker/setup/engines.mjs'))});
    process.getuid = () => Number(process.env.TEST_UID ?? 0);
    const progress = new Progress({ write: (line) => process.stdout.write(line), isTerminal: false });
    await installMissing(${JSON.stringify(dir)}, progress, [
      { file: ${JSON.stringify(join(dir, 'strace'))}, package: 'strace', for: 'tear' },
    ], Number(process.env.TEST_WAIT_MS ?? 60000));`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', source], {
    env: { PATH: bin, TEST_FILE: join(dir, 'strace'), ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)]);
  return stdout + stderr;
}

t.test('set-up installs what is missing and says what for', async (t) => {
  const output = await installWith(t, 'echo "pmstatus:strace:40.0:Unpacking" >&3; : > $TEST_FILE');
  t.match(output, /installing strace: tear\n/);
  t.notMatch(output, /not installed/);
});

const REST =
  /not installed: strace; not measured without it: tear\nplugpull setup: (.*); to get the rest: (.*)\n$/;
for (const [what, apt, env, why, command] of [
  [
    'apt fails',
    'echo "E: Unable to fetch some archives"; exit 100',
    {},
    /^apt-get (install|update) failed: E: Unable to fetch some archives$/,
    'apt-get install strace',
  ],
  [
    'another apt holds the lock',
    'echo "E: Could not get lock /var/lib/dpkg/lock-frontend"; exit 100',
    { TEST_WAIT_MS: '0' },
    'another apt holds the lock',
    'apt-get install strace',
  ],
  ['the user is not root', ':', { TEST_UID: '1000' }, 'not root', 'sudo apt-get install strace'],
  [
    'installing is turned off',
    ':',
    { PLUGPULL_NO_INSTALL: '1' },
    'PLUGPULL_NO_INSTALL=1',
    'apt-get install strace',
  ],
  [
    'there is no apt-get',
    undefined,
    {},
    'this is neither Debian nor Ubuntu',
    'install the packages that Debian calls strace',
  ],
] as const)
  t.test(`set-up goes on without an engine when ${what}, and says how to get it`, async (t) => {
    const output = await installWith(t, apt, env);
    t.match(REST.exec(output)?.slice(1), [why, command], output);
  });

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, fsyncSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { notInstalled, RealServer } from '../../conformance/fixtures/real-server.js';
import { BeanstalkConnection } from '../../conformance/protocols/beanstalk/connection.js';
import { testDirectories, testRandom } from '../../faults/fixtures/fault-context.js';
import { skipReason, withDisk } from '../../faults/power/fixtures/disk.js';
import { straceAvailability } from '../../faults/programs.js';

/**
 * These tests show what beanstalkd 1.12 does to confirmed jobs when it compacts its binlog (findings 3 and 4
 * in FINDINGS.md). Its behaviour is deterministic. A put, a delete or a release moves the oldest jobs into
 * the newest file when there are three or more files and they are mostly empty. Each start adds a file.
 */
const strace = straceAvailability();
const why = notInstalled('beanstalkd') ?? (strace.available ? undefined : strace.why);
const skip = why ?? false;

const ANSWER_MS = 10_000;
const MB = 1_000_000;
const random = testRandom(1);

function job(sizeBytes: number): Buffer {
  return Buffer.from(Uint8Array.from({ length: sizeBytes }, () => 1 + random.int(255)));
}

async function put(server: RealServer, bytes: Buffer): Promise<string> {
  const dialogue = await BeanstalkConnection.open(server.address, ANSWER_MS);
  try {
    const { words } = await dialogue.call(`put 0 0 60 ${bytes.length}`, bytes);
    return words.join(' ');
  } catch {
    return 'no answer';
  } finally {
    dialogue.break(new Error('closed'));
  }
}

/**
 * Reserves all jobs of a server.
 * @returns for each job the name of the known job with the same bytes, sorted.
 */
async function jobs(server: RealServer, known: Readonly<Record<string, Buffer>>): Promise<string[]> {
  const dialogue = await BeanstalkConnection.open(server.address, ANSWER_MS);
  const names: string[] = [];
  for (;;) {
    const { body } = await dialogue.call('reserve-with-timeout 0');
    if (body === undefined) break;
    const [name] = Object.entries(known).find(([, bytes]) => bytes.equals(body)) ?? [];
    names.push(
      name ?? `${body.length} bytes, ${body.every((byte) => byte === 0) ? 'all zero' : 'other bytes'}`,
    );
  }
  dialogue.break(new Error('closed'));
  return names.sort();
}

/**
 * Starts a server whose first binlog file holds the given confirmed jobs. Kills and starts the server three
 * times.
 */
async function withOldJobs(t: Test, old: readonly Buffer[], parent?: string): Promise<RealServer> {
  const server = await RealServer.make('beanstalkd-f0', parent);
  t.teardown(() => server.remove());
  await server.start();
  for (const bytes of old) t.match(await put(server, bytes), /^INSERTED/);
  for (let starts = 0; starts < 3; starts++) {
    await server.kill();
    await server.start();
  }
  return server;
}

/**
 * Traces the system calls of a server from now on.
 * @param killAtWrite number of the `write` at which strace kills the server.
 * @returns a function that waits for the end of the server, because the log is complete only then, and
 *   returns the calls.
 */
async function watch(t: Test, server: RealServer, killAtWrite?: number): Promise<() => Promise<string[]>> {
  const { scratchDir, remove } = testDirectories();
  t.teardown(remove);
  const log = join(scratchDir, 'strace');
  const kill = killAtWrite === undefined ? [] : ['-e', `inject=write:signal=KILL:when=${killAtWrite}`];
  const calls = ['-s', '0', '-y', '-e', 'trace=write,unlink,fsync,close', ...kill];
  const child = spawn('strace', ['-f', '-o', log, ...calls, '-p', `${server.pid}`], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const ended = once(child, 'exit');
  let stderr = '';
  for await (const chunk of child.stderr) {
    stderr += chunk;
    if (stderr.includes('attached')) break;
  }
  return async () => {
    await ended;
    return readFileSync(log, 'latin1').split('\n').flatMap(shortForms);
  };
}

/**
 * Shortens a line of the log: `write binlog.4 502`, `unlink binlog.1`, `fsync binlog.4`, `answer`. Drops
 * other lines.
 */
function shortForms(line: string): string[] {
  if (/write\(\d+<socket/.test(line)) return ['answer'];
  const [, call = '', file = '', bytes] = /(\w+)\(.*(binlog\.\d+).*?(?:, (\d+))?\)/.exec(line) ?? [];
  return call === '' ? [] : [[call, file, ...(bytes === undefined ? [] : [bytes])].join(' ')];
}

t.test(
  'a put removes the file of an old job before it writes the job to the new one',
  { skip },
  async (t) => {
    const server = await withOldJobs(t, [job(3 * MB)]);
    const log = await watch(t, server);
    t.equal(await put(server, job(500)), 'INSERTED 2');
    await server.kill();
    t.strictSame(await log(), [
      ...['write binlog.4 4', 'write binlog.4 7', 'write binlog.4 80', 'write binlog.4 502'],
      ...['unlink binlog.1', 'unlink binlog.2', 'unlink binlog.3'],
      ...['write binlog.4 4', 'write binlog.4 7', 'write binlog.4 80', 'write binlog.4 3000002'],
      ...['fsync binlog.4', 'answer'],
    ]);
  },
);

t.test(
  'a kill while a put moves an old confirmed job loses that job or fills it with zeros',
  { skip },
  async (t) => {
    const left: [string[], string][] = [
      [['old'], 'the head of the new job is incomplete'],
      [['old'], 'the head of the new job is incomplete'],
      [['old'], 'the head of the new job is incomplete'],
      [['500 bytes, all zero', 'old'], 'PP-5: never confirmed, delivered with the bytes of the empty file'],
      [['new'], 'PP-1: the old file is removed, and the job is lost'],
      [['new'], 'PP-1: the old file is removed, and the job is lost'],
      [['new'], 'PP-1: the old file is removed, and the job is lost'],
      [
        ['3000000 bytes, all zero', 'new'],
        'PP-4: the head with the length was written, and the bytes were not',
      ],
      [['new', 'old'], 'everything was written'],
    ];
    for (const [index, [expected, what]] of left.entries()) {
      const known = { old: job(3 * MB), new: job(500) };
      const server = await withOldJobs(t, [known.old]);
      const log = await watch(t, server, index + 1);
      t.equal(await put(server, known.new), 'no answer');
      await log();
      await server.kill();
      await server.start();
      t.strictSame(await jobs(server, known), expected, `at write ${index + 1}: ${what}`);
      await server.remove();
    }
  },
);

t.test('a start moves no job, even after repeated kills', { skip }, async (t) => {
  const known = { old: job(3 * MB) };
  const server = await withOldJobs(t, [known.old]);
  for (let starts = 0; starts < 5; starts++) {
    await server.kill();
    await server.start();
  }
  t.strictSame(await jobs(server, known), ['old']);
});

/**
 * Makes four jobs. `last` fits into the newest file and fills it. The old job that is moved then goes into
 * another file, and only that file is synced.
 */
const full = () => ({ first: job(4 * MB), second: job(4 * MB), third: job(4 * MB), last: job(1.5 * MB) });

t.test('with -f 0, a put is confirmed although its file was closed without a sync', { skip }, async (t) => {
  const { first, second, third, last } = full();
  const server = await withOldJobs(t, [first, second]);
  t.equal(await put(server, third), 'INSERTED 3');
  const log = await watch(t, server);
  t.equal(await put(server, last), 'INSERTED 4');
  await server.kill();
  const calls = await log();
  t.ok(calls.includes('write binlog.4 1500002'));
  t.ok(calls.includes('close binlog.4'));
  t.strictSame(
    calls.filter((call) => call.startsWith('fsync') || call === 'answer'),
    ['fsync binlog.5', 'answer'],
  );
});

t.test(
  'with -f 0, a power cut loses a confirmed job whose file was closed without a sync',
  { skip: skip || skipReason() },
  async (t) => {
    await withDisk(async ({ disk, mountPoint }) => {
      const known = full();
      const { first, second, third, last } = known;
      const server = await withOldJobs(t, [first, second], mountPoint);
      const directory = openSync(mountPoint, 'r');
      fsyncSync(directory);
      closeSync(directory);
      t.equal(await put(server, third), 'INSERTED 3');
      t.equal(await put(server, last), 'INSERTED 4');
      const moment = disk.stop();
      const killed = server.kill();
      disk.resume();
      await killed;
      await disk.cut(moment, 'all-lost', testRandom(1));
      await server.start();
      const delivered = await jobs(server, known);
      t.notOk(delivered.includes('last'), `delivered: ${delivered.join(', ')}`);
      await server.remove();
    });
  },
);

// Shows that the causes on the page FIX-IT.md are true: with the wrong lines the example violates the requirement that
// the page names, and with the right lines it does not.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import t, { type Test } from 'tap';
import { blocklogAvailability } from '../../faults/power/blocklog-availability.js';
import { straceAvailability } from '../../faults/programs.js';
import { until } from '../../faults/waiting.js';
import { withFilePerMessage } from '../fixtures/file-per-message.js';
import { changeIn, fixItPage, sectionOf, testedCauses, withWrongLines } from '../fixtures/fix-it-page.js';
import { TestWorkspace } from '../fixtures/kit.js';
import { packageRoot } from '../host/version.js';
import type { GateResult } from './result.js';

const EXAMPLE = join(packageRoot(), 'conformance/examples/python');
/** Upper bound of the gates, each with the next seed, in which a violation must show. Whether a fault hits is partly chance. */
const MAX_GATES = 3;
/** Upper bound of the faults of one gate, which ends at the first violation. */
const MAX_INJECTIONS = 10;
/** Causes whose lines are in the example with a file for each message. */
const FILE_PER_MESSAGE = new Set(['The directory is not synced']);

const page = fixItPage();
const example = readFileSync(join(EXAMPLE, 'queue.py'), 'utf8');
const python = spawnSync('python3', ['--version']).status === 0;

/** Runs the gate on a changed example until it fails; returns the last result. */
async function gate(
  t: Test,
  program: string,
  faults: string,
  { gates, injections }: { gates: number; injections: number },
): Promise<GateResult> {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  cpSync(EXAMPLE, workspace.dir, { recursive: true });
  writeFileSync(join(workspace.dir, 'queue.py'), program);
  const file = join(workspace.dir, 'target.json');
  const definition = JSON.parse(readFileSync(file, 'utf8')) as { guarantee: { faults: string[] } };
  // The example does not claim a full disk, because a queue without a limit never rejects.
  definition.guarantee.faults.push('full');
  writeFileSync(file, JSON.stringify(definition));
  let result: GateResult | undefined;
  for (let seed = 3; seed < 3 + gates && result?.verdict !== 'fail'; seed++) {
    const limits = ['--injections', `${injections}`, '--budget', '3m'];
    const { stdout, stderr } = await workspace.run([
      'gate',
      file,
      '--json',
      '--seed',
      `${seed}`,
      '--faults',
      faults,
      ...limits,
    ]);
    if (stdout === '') throw new Error(stderr);
    result = JSON.parse(stdout) as GateResult;
  }
  if (result === undefined) throw new Error('no gate was run');
  return result;
}

function whySkipped(faults: string): string | false {
  if (!python) return 'python3 is not installed';
  if (process.getuid?.() !== 0 && faults === 'disk-full') return 'not root';
  const needed = {
    'power-cut': blocklogAvailability,
    'io-error': straceAvailability,
    tear: straceAvailability,
  };
  const availability = needed[faults as keyof typeof needed]?.();
  return availability === undefined || availability.available ? false : (availability.why ?? 'not available');
}

t.jobs = 2;

const causes = testedCauses(page);

t.test('the page has the causes that this test shows', async (t) => {
  t.ok(causes.filter(({ faults }) => faults !== undefined).length >= 7);
  t.ok(causes.length >= 8);
});

for (const { title, faults, requirement } of causes) {
  if (faults === undefined) continue;
  const right = FILE_PER_MESSAGE.has(title) ? withFilePerMessage(example) : example;
  t.test(`${title}: ${requirement} fails under ${faults}`, { skip: whySkipped(faults) }, async (t) => {
    const wrong = withWrongLines(right, changeIn(sectionOf(page, title)));
    const result = await gate(t, wrong, faults, { gates: MAX_GATES, injections: MAX_INJECTIONS });
    const failed = result.requirements.filter(({ verdict }) => verdict === 'fail').map(({ id }) => id);
    t.ok(failed.includes(requirement), `failed: ${failed.join(', ') || 'none'}; ${result.why}`);
    const { fixIt } = result.requirements.find(({ id }) => id === requirement) as { fixIt?: string };
    t.ok(fixIt?.endsWith(`FIX-IT.md#${requirement.toLowerCase()}`), `the result links to the page: ${fixIt}`);
  });
}

// The test examples.system.test.ts shows that the example passes under the other faults.
for (const [name, program, faults] of [
  ['with a file for each message', withFilePerMessage(example), 'power-cut'],
  ['with a full disk', example, 'disk-full'],
] as const) {
  t.test(`the right lines lose nothing: ${name}`, { skip: whySkipped(faults) }, async (t) => {
    const result = await gate(t, program, faults, { gates: 1, injections: 4 });
    t.match(result, { lost: 0, duplicates: 0, corrupted: 0 }, result.why);
    t.not(result.verdict, 'fail', result.why);
    // A queue without a limit rejects nothing on a full disk, so PP-8 is not measured and the verdict is no pass.
    const judged = result.requirements.find(({ id }) => id === (faults === 'disk-full' ? 'PP-19' : 'PP-12'));
    t.equal(judged?.verdict, 'pass', judged?.why ?? 'not judged');
    t.ok(
      result.faults.some(({ hit }) => hit > 0),
      'a fault hit',
    );
  });
}

/** Makes a directory with a log that holds one message, and writes a program beside it. */
function prepared(t: Test, program: string, log: Buffer): { file: string; data: string } {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  const data = join(workspace.dir, 'data');
  mkdirSync(data);
  writeFileSync(join(data, 'log'), log);
  const file = join(workspace.dir, 'queue.py');
  writeFileSync(file, program);
  return { file, data };
}

/** Starts a queue, gives `use` its address, and kills it. */
async function withQueue<T>(
  t: Test,
  { file, data }: { file: string; data: string },
  use: (url: string) => Promise<T>,
): Promise<T> {
  const port = await freePort();
  const child = spawn('python3', [file, '--data', data, '--port', `${port}`], { stdio: 'inherit' });
  t.teardown(() => child.kill('SIGKILL'));
  const url = `http://127.0.0.1:${port}`;
  const isReady = () =>
    fetch(`${url}/ready`).then(
      ({ ok }) => ok,
      () => false,
    );
  if (!(await until(isReady, 60_000))) throw new Error('the queue is not ready');
  const result = await use(url);
  const exited = once(child, 'exit');
  child.kill('SIGKILL');
  await exited;
  return result;
}

/** Starts a queue and takes one message if there is one. Returns its body. */
function firstMessage(t: Test, queue: { file: string; data: string }): Promise<Buffer | undefined> {
  return withQueue(t, queue, async (url) => {
    const leased = await fetch(`${url}/leases?wait=0`, { method: 'POST' });
    return leased.status === 200 ? Buffer.from(await leased.arrayBuffer()) : undefined;
  });
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

/** A log of the example with one message of 2,048 bytes. */
function logWithOneMessage(): Buffer {
  const head = Buffer.from([0x50, 0, 3, 0, 0, 0x08, 0, ...Buffer.from('1-0')]);
  const record = Buffer.concat([head, Buffer.alloc(2048, 'x')]);
  const sum = Buffer.alloc(4);
  sum.writeUInt32BE(crc32(record));
  return Buffer.concat([record, sum]);
}

t.test(
  'The record has no checksum: a record without one of its sectors is delivered',
  { skip: whySkipped('') },
  async (t) => {
    const wrong = withWrongLines(example, changeIn(sectionOf(page, 'The record has no checksum')));
    const whole = logWithOneMessage();
    const torn = Buffer.from(whole).fill(0, 1024, 1536);
    t.equal(
      (await firstMessage(t, prepared(t, example, whole)))?.length,
      2048,
      'a whole record is delivered',
    );
    t.equal(await firstMessage(t, prepared(t, example, torn)), undefined, 'a torn one is left out');
    const delivered = await firstMessage(t, prepared(t, wrong, torn));
    t.equal(delivered?.length, 2048);
    t.ok(delivered?.includes(0), 'the delivered bytes are not those that were submitted');
  },
);

t.test(
  'Records are appended behind a torn record: the next recovery does not see them',
  { skip: whySkipped('') },
  async (t) => {
    const title = 'Records are appended behind a torn record';
    const wrong = withWrongLines(example, changeIn(sectionOf(page, title)));
    const torn = logWithOneMessage().fill(0, 1024, 1536);
    for (const [program, received] of [
      [example, 'later'],
      [wrong, undefined],
    ] as const) {
      const queue = prepared(t, program, torn);
      const status = await withQueue(t, queue, async (url) => {
        const answer = await fetch(`${url}/messages/1-1`, { method: 'PUT', body: 'later' });
        return answer.status;
      });
      t.equal(status, 201, 'the later message is confirmed');
      t.equal((await firstMessage(t, queue))?.toString(), received, `received: ${received ?? 'nothing'}`);
    }
  },
);

t.test(
  'The recovery overwrites its input: a kill at its first write loses the message',
  { skip: whySkipped('tear') },
  async (t) => {
    const wrong = withWrongLines(example, changeIn(sectionOf(page, 'The recovery overwrites its input')));
    for (const [program, written, sizeBytes] of [
      [example, 'log.new', 2048],
      [wrong, 'log', undefined],
    ] as const) {
      const queue = prepared(t, program, logWithOneMessage());
      const kill = ['-f', '-P', join(queue.data, written), '-e', 'inject=write:signal=SIGKILL:when=1'];
      const args = [...kill, 'python3', queue.file, '--data', queue.data, '--port', `${await freePort()}`];
      const killed = spawnSync('strace', args, { timeout: 120_000, killSignal: 'SIGKILL' });
      t.equal(killed.signal, 'SIGKILL', `the recovery is killed: ${killed.stderr}`);
      t.equal(killed.error, undefined, 'at its write, and not by the time limit');
      t.equal((await firstMessage(t, queue))?.length, sizeBytes, `the recovery writes ${written}`);
    }
  },
);

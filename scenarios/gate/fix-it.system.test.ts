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
/** Faults of one gate. A gate ends at the first violation, so a wrong program needs fewer. */
const INJECTIONS = 10;
/** Causes whose lines are in the example with a file for each message. */
const FILE_PER_MESSAGE = new Set(['The directory is not synced']);

const page = fixItPage();
const example = readFileSync(join(EXAMPLE, 'queue.py'), 'utf8');
const python = spawnSync('python3', ['--version']).status === 0;

/** Runs the gate on a changed example until it fails; returns the last result. */
async function gate(t: Test, program: string, faults: string, gates: number): Promise<GateResult> {
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
    const limits = ['--injections', `${INJECTIONS}`, '--budget', '3m'];
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
    const result = await gate(t, wrong, faults, MAX_GATES);
    const failed = result.requirements.filter(({ verdict }) => verdict === 'fail').map(({ id }) => id);
    t.ok(failed.includes(requirement), `failed: ${failed.join(', ') || 'none'}; ${result.why}`);
    const { fixIt } = result.requirements.find(({ id }) => id === requirement) as { fixIt?: string };
    t.ok(fixIt?.endsWith(`FIX-IT.md#${requirement.toLowerCase()}`), `the result links to the page: ${fixIt}`);
  });
}

// Of the other faults, examples.system.test.ts shows that the example passes.
for (const [name, program, faults] of [
  ['with a file for each message', withFilePerMessage(example), 'power-cut'],
  ['with a full disk', example, 'disk-full'],
] as const) {
  t.test(`the right lines lose nothing: ${name}`, { skip: whySkipped(faults) }, async (t) => {
    const result = await gate(t, program, faults, 1);
    t.match(result, { lost: 0, duplicates: 0, corrupted: 0, verdict: 'pass' }, result.why);
    t.ok(
      result.faults.some(({ hit }) => hit > 0),
      'a fault hit',
    );
  });
}

/** Starts a queue on a directory, takes one message if there is one, and stops the queue. Returns the body. */
async function firstMessage(t: Test, program: string, data: string): Promise<Buffer | undefined> {
  const file = join(data, '..', 'queue.py');
  writeFileSync(file, program);
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
  const leased = await fetch(`${url}/leases?wait=0`, { method: 'POST' });
  const body = leased.status === 200 ? Buffer.from(await leased.arrayBuffer()) : undefined;
  const exited = once(child, 'exit');
  child.kill('SIGKILL');
  await exited;
  return body;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

t.test(
  'The record has no checksum: a record without one of its sectors is delivered',
  { skip: !python },
  async (t) => {
    const { right, wrong } = changeIn(sectionOf(page, 'The record has no checksum'));
    const workspace = new TestWorkspace();
    t.teardown(() => workspace.remove());
    const data = join(workspace.dir, 'data');
    mkdirSync(data);
    const head = Buffer.from([0x50, 0, 3, 0, 0, 0x08, 0, ...Buffer.from('1-0')]);
    const record = Buffer.concat([head, Buffer.alloc(2048, 'x')]);
    const sum = Buffer.alloc(4);
    sum.writeUInt32BE(crc32(record));
    const whole = Buffer.concat([record, sum]);
    const torn = Buffer.from(whole).fill(0, 1024, 1536);
    for (const [name, log, program, sizeBytes] of [
      ['whole', whole, example, 2048],
      ['torn, with a checksum', torn, example, undefined],
      ['torn, without a checksum', torn, withWrongLines(example, { right, wrong }), 2048],
    ] as const) {
      writeFileSync(join(data, 'log'), log);
      const body = await firstMessage(t, program, data);
      t.equal(body?.length, sizeBytes, name);
      if (program !== example) t.ok(body?.includes(0), 'its bytes are not those that were submitted');
    }
  },
);

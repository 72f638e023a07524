import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { findProgram, straceAvailability } from '../../faults/programs.js';
import { processesBelow, TestWorkspace } from '../fixtures/kit.js';
import type { SweepResult } from './sweep.js';

const skip = straceAvailability().available ? false : 'strace is not installed';

t.test(
  'a correct queue survives kills at its system calls, and errors of its syncs and writes',
  { skip },
  async (t) => {
    const workspace = new TestWorkspace();
    t.teardown(() => workspace.remove());
    const target = workspace.queue('', ['kill', 'io-error'], 20);
    const { code, stdout, stderr } = await workspace.run([
      'sweep',
      target,
      '--json',
      '--each',
      '1',
      '--budget',
      '90s',
      '--seed',
      '1',
    ]);
    t.equal(code, 0, stderr);
    const result = JSON.parse(stdout) as SweepResult;
    const row = (kind: string, what: string) =>
      result.sweep.find((one) => one.kind === kind && one.what === what) ?? {
        calls: 0,
        tried: 0,
        hit: 0,
      };
    for (const [kind, what] of [
      ['sync', 'kill'],
      ['write', 'kill'],
      ['read', 'kill'],
      ['sync', 'EIO'],
      ['write', 'ENOSPC'],
    ] as const) {
      const { calls, tried, hit } = row(kind, what);
      t.ok(
        calls > 0 && tried > 0 && hit > 0,
        `${kind} ${what}: ${calls} enumerated, ${tried} tried, ${hit} hit`,
      );
    }
    t.match(stderr, /server +sync +kill +enumerated \d+ +tried \d+ +hit \d+/);
    t.match(stderr, /\d+ system calls were not tried: more than 1 of a kind \(--each\)/);
    t.same(readdirSync(join(workspace.state, 'runs')), []);
    t.same(processesBelow(workspace.dir), []);
  },
);

t.test('a queue that continues after a failed sync fails PP-14 at its first sync', { skip }, async (t) => {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  const target = workspace.queue('goes-on-after-errors', ['kill', 'io-error'], 20);
  const flags = ['--faults', 'io-error', '--each', '1', '--budget', '60s', '--seed', '1', '--json'];
  const { code, stdout, stderr } = await workspace.run(['sweep', target, ...flags]);
  t.equal(code, 1, stderr);
  const { requirements } = JSON.parse(stdout) as SweepResult;
  t.ok(
    requirements.some(({ id, verdict }) => id === 'PP-14' && verdict === 'fail'),
    stderr,
  );
  t.match(stderr, /EIO from 1 calls of fdatasync \(each thread's 1\).* unsynced sectors put back: \d+/);
});

t.test('a sweep tries no more system calls than --calls', { skip }, async (t) => {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  const target = workspace.queue('', ['kill'], 20);
  const limits = ['--calls', '3', '--budget', '10m'];
  const { code, stdout, stderr } = await workspace.run(['sweep', target, '--json', '--seed', '1', ...limits]);
  t.equal(code, 0, stderr);
  const { sweep, replay } = JSON.parse(stdout) as SweepResult;
  t.equal(
    sweep.reduce((sum, { tried }) => sum + tried, 0),
    3,
  );
  t.match(stderr, /\d+ system calls were not tried: more than 3 in total \(--calls\)/);
  t.match(replay, / --calls 3 --budget 600s$/);
});

t.test('a sweep rejects a fault that the target does not claim to survive', { skip }, async (t) => {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  t.match(await workspace.run(['sweep', workspace.queue(''), '--faults', 'io-error']), {
    code: 2,
    stderr: /--faults io-error: the target test does not claim to survive it/,
  });
});

const isRoot = process.getuid?.() === 0;
const unprivileged =
  isRoot && findProgram('setpriv') !== undefined ? skip : 'giving up root needs root, and setpriv';

t.test('a target that gives up root can be swept', { skip: unprivileged }, async (t) => {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  const limits = ['--calls', '2', '--budget', '10m', '--seed', '1'];
  const swept = await workspace.run(['sweep', workspace.unprivilegedQueue(''), '--json', ...limits]);
  t.equal(swept.code, 0, swept.stderr);
  const { sweep } = JSON.parse(swept.stdout) as SweepResult;
  t.ok(
    sweep.some(({ hit }) => hit > 0),
    swept.stderr,
  );
});

t.test('a sweep of a target that does not start keeps the logs that it names', { skip }, async (t) => {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  const broken = workspace.target(['sh', '-c', 'echo no such key >&2; exit 1', '{data}', '{port}']);
  const swept = await workspace.run(['sweep', broken, '--seed', '1', '--budget', '10m']);
  t.equal(swept.code, 3, swept.stderr);
  t.match(swept.stderr, /services\.server exited with code 1 .* ends with: no such key/);
  const logs = /its logs are in (\S+)/.exec(swept.stderr)?.[1] ?? '';
  t.match(readFileSync(join(logs, 'server.log'), 'utf8'), /no such key/);
});

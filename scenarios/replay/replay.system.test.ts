import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import t from 'tap';
import { findProgram } from '../../faults/programs.js';
import { processesBelow, TestWorkspace } from '../fixtures/kit.js';
import type { GateResult } from '../gate/result.js';
import type { ReplayResult } from './replay.js';

t.test(
  'a bundle reproduces its violation and can be shrunk, and `clean` removes what its replays have made',
  async (t) => {
    const workspace = new TestWorkspace();
    t.teardown(() => workspace.remove());
    const wrong = workspace.queue('confirms-early', ['kill'], 5);
    const gate = await workspace.run([
      'gate',
      wrong,
      '--json',
      '--seed',
      '7',
      '--injections',
      '30',
      '--budget',
      '10m',
      '--faults',
      'kill-one',
    ]);
    const { bundle } = JSON.parse(gate.stdout) as GateResult;
    t.ok(existsSync(bundle ?? ''), `the result names ${bundle}`);
    const printed = /run it again: node \S+main\.js replay (\S+)\n/.exec(gate.stderr)?.[1] ?? '';
    t.equal(resolve(workspace.dir, printed), bundle, 'the report names it as the user can type it');
    const again = await workspace.run([
      'replay',
      bundle ?? '',
      '--json',
      '--shrink',
      '--runs',
      '1',
      '--budget',
      '25s',
    ]);
    t.equal(again.code, 1, again.stderr);
    const result = JSON.parse(again.stdout) as ReplayResult;
    t.match(result, { kind: 'gate', verdict: 'fail', requirements: ['PP-1'], runs: 1, reproduced: 1 });
    t.match(result.why, /PP-1 failed again in 1 of 1 runs/);
    const story = result.story.join('\n');
    t.match(
      story,
      /message \S+ submitted.*\n.*confirmed: 201\n.*kill-one 1: SIGKILL.*\n.*PP-1: confirmed and never/,
    );
    t.ok(existsSync(result.shrunkBundle ?? ''), 'the smaller bundle is written');
    const right = await workspace.run([
      'replay',
      bundle ?? '',
      '--json',
      '--runs',
      '1',
      '--target',
      workspace.queue(''),
    ]);
    t.equal(right.code, 0, right.stderr);
    t.match(JSON.parse(right.stdout), {
      ...{ verdict: 'pass', reproduced: 0, why: /passed 1 of 1 runs.*failed in none of them/ },
      ...{ meaning: /^if the failure still came in 95 % of the runs/, story: [] },
      ...{ judged: 'run', recordAnew: null },
    });
    t.match(right.stderr, /^recorded:\n[\s\S]*^replay: the recorded schedule[\s\S]*^run 1 of 1: pass/m);
    t.equal(right.stderr.split('confirmed and never delivered').length, 2, 'the recorded story comes once');
    const bytes = readFileSync(bundle ?? '');
    bytes[2000] = (bytes[2000] ?? 0) ^ 1;
    writeFileSync(join(workspace.dir, 'changed.tar.gz'), bytes);
    const changed = await workspace.run(['replay', 'changed.tar.gz']);
    t.match(changed, {
      code: 2,
      stderr: /^plugpull: \S+changed\.tar\.gz: was changed since it was made: .*\n$/,
    });
    const at = await workspace.run(['replay', bundle ?? '', '--at', '3']);
    t.match(at, { code: 2, stderr: /--at 3: this bundle has no recorded disk/ });
    const shell = await workspace.run(['replay', bundle ?? '', '--shell']);
    t.match(shell, {
      code: 0,
      stderr: /under a debugger: \S+node --inspect-brk .*queue\.mjs --data \S+data-at-end/,
    });
    t.equal(
      readdirSync(join(workspace.state, 'replays')).length,
      1,
      'the directory of --shell stays until `clean`',
    );
    const clean = await workspace.run(['clean']);
    t.equal(clean.code, 0, clean.stderr);
    t.same(readdirSync(join(workspace.state, 'replays')), []);
    t.same(workspace.runs(), []);
    t.same(processesBelow(workspace.dir), []);
  },
);

const isRoot = process.getuid?.() === 0;
const unprivileged =
  isRoot && findProgram('setpriv') !== undefined ? false : 'giving up root needs root, and setpriv';

t.test(
  'a target that gives up root can be replayed, also when no other user may enter what the caller makes',
  { skip: unprivileged },
  async (t) => {
    const workspace = new TestWorkspace();
    t.teardown(() => workspace.remove());
    const target = workspace.unprivilegedQueue('confirms-early');
    mkdirSync(workspace.state);
    const umask = process.umask(0o077);
    t.teardown(() => void process.umask(umask));
    const limits = ['--seed', '7', '--injections', '30', '--budget', '10m', '--faults', 'kill-one'];
    const gate = await workspace.run(['gate', target, '--json', ...limits]);
    t.equal(gate.code, 1, gate.stderr);
    const { bundle } = JSON.parse(gate.stdout) as GateResult;
    const again = await workspace.run(['replay', bundle ?? '', '--json', '--runs', '1']);
    t.equal(again.code, 1, again.stderr);
    t.match(JSON.parse(again.stdout), { runs: 1, reproduced: 1 });
  },
);

t.test('the logs that a failed replay names stay until `clean`', async (t) => {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  const limits = ['--seed', '7', '--injections', '30', '--budget', '10m', '--faults', 'kill-one'];
  const gate = await workspace.run(['gate', workspace.queue('confirms-early'), '--json', ...limits]);
  const { bundle } = JSON.parse(gate.stdout) as GateResult;
  const broken = workspace.target(['sh', '-c', 'echo no such key >&2; exit 1', '{data}', '{port}']);
  const replay = await workspace.run(['replay', bundle ?? '', '--runs', '1', '--target', broken]);
  t.equal(replay.code, 3, replay.stderr);
  t.match(replay.stderr, /services\.server exited with code 1 .* ends with: no such key/);
  const logs = /its logs are in (\S+)/.exec(replay.stderr)?.[1] ?? '';
  t.match(readFileSync(join(logs, 'server.log'), 'utf8'), /no such key/);
  t.equal((await workspace.run(['clean'])).code, 0);
  t.notOk(existsSync(logs));
});

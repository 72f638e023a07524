import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { until } from '../../faults/waiting.js';
import { processesBelow, TestWorkspace } from '../fixtures/kit.js';
import { allProcesses } from '../host/processes.js';
import { packageRoot } from '../host/version.js';

const PROGRAM = join(packageRoot(), 'conformance/fixtures/hostile.mjs');
/**
 * Limit of each test, in milliseconds, far above what it takes on a loaded machine. Without a limit, a kit
 * that hangs would hang the tests.
 */
const HANG_MS = 120_000;

function newWorkspace(t: { teardown(remove: () => void): void }): TestWorkspace {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  return workspace;
}

function hostile(workspace: TestWorkspace, how: string): string {
  return workspace.target(['{node}', PROGRAM, '--data', '{data}', '--port', '{port}', '--how', how], {
    guarantee: { faults: ['kill'], duplicatesPerCrash: 0, redeliverySeconds: 6, recoverySeconds: 20 },
  });
}

/**
 * Returns the processes of the hostile program that use this workspace. It searches the command lines,
 * because a hostile process may have changed its environment.
 */
function alive(workspace: TestWorkspace): number[] {
  return allProcesses().flatMap(({ pid }) => {
    try {
      const commandLine = readFileSync(`/proc/${pid}/cmdline`, 'latin1');
      return commandLine.includes(PROGRAM) && commandLine.includes(workspace.dir) ? [pid] : [];
    } catch {
      return [];
    }
  });
}

const CASES: [how: string, code: number, reason: RegExp][] = [
  ['never-answers', 3, /did not get ready.*running, and not ready on port/],
  ['ready-and-silent', 3, /nothing was confirmed/],
  ['nonsense', 3, /nothing was confirmed/],
  ['ignores-sigterm', 3, /nothing was confirmed/],
  // The daemon keeps the port: how far the gate gets before it sees that the service has gone depends on the machine.
  [
    'forks-away',
    3,
    /(did not get ready|does not stay up).*services\.server exited with code 0|nothing was confirmed/,
  ],
];

for (const [how, code, reason] of CASES) {
  t.test(
    `a gate of the hostile target '${how}' ends with a reason and leaves nothing behind`,
    { timeout: HANG_MS },
    async (t) => {
      const workspace = newWorkspace(t);
      const ended = await workspace.run(['gate', hostile(workspace, how), '--budget', '4s', '--seed', '3']);
      t.equal(ended.code, code, ended.stderr);
      t.match(ended.stderr, reason);
      t.notMatch(ended.stderr, /\n\s+at /, 'no stack trace');
      t.same(processesBelow(workspace.dir), []);
      t.ok(await until(() => alive(workspace).length === 0, 30_000), 'no process of the target is alive');
    },
  );
}

/**
 * Makes a target whose server is a correct queue, and whose second service runs the shell script `source`.
 * The second service has no port, so that only its exit shows that it is not up.
 */
function withDying(workspace: TestWorkspace, source: string): string {
  const queue = join(packageRoot(), 'conformance/fixtures/queue.mjs');
  return workspace.target([], {
    services: {
      server: { command: ['{node}', queue, '--data', '{data}', '--port', '{port}'] },
      helper: { command: ['/bin/sh', '-c', source, '{data}'] },
    },
  });
}

t.test(
  'a service without a port that dies right after each start is reported',
  { timeout: HANG_MS },
  async (t) => {
    const workspace = newWorkspace(t);
    const ended = await workspace.run([
      'gate',
      // Die so early that the service dies often enough between two faults, even on a loaded machine.
      withDying(workspace, 'sleep 0.02; exit 7'),
      '--budget',
      '10m',
      '--seed',
      '3',
    ]);
    t.equal(ended.code, 3, ended.stderr);
    // On a slow machine a recovery times out before the service has died 31 times.
    t.match(
      ended.stderr,
      /(did not get ready|does not stay up).*services\.helper exited with code 7 after [\d.]+ s(, \d+ times| right after each of 31 starts)/,
    );
    t.notMatch(ended.stderr, /\n\s+at /, 'no stack trace');
    t.same(processesBelow(workspace.dir), []);
  },
);

t.test('a service that stays down after a fault is a failed recovery', { timeout: HANG_MS }, async (t) => {
  const workspace = newWorkspace(t);
  // The first process stays up. Every later one exits at once.
  const once = 'test -e "$0/broken" && exit 7; touch "$0/broken"; exec sleep 600';
  const target = withDying(workspace, `sleep 0.01; ${once}`);
  const ended = await workspace.run(['gate', target, '--budget', '10m', '--seed', '3', '--json']);
  t.equal(ended.code, 1, ended.stderr);
  // On a slow machine the recovery times out before the service has died 31 times.
  t.match(
    ended.stdout,
    /services\.helper exited with code 7 after [\d.]+ s(, \d+ times| right after each of 31 starts)/,
  );
});

const root = process.getuid?.() === 0 ? false : 'mounting a small disk needs root';
t.test(
  'a target that fills the disk is stopped before the disk is full',
  { timeout: HANG_MS, skip: root },
  async (t) => {
    const workspace = newWorkspace(t);
    mkdirSync(workspace.state, { recursive: true });
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=256m', 'plugpull-test', workspace.state]);
    try {
      const ended = await workspace.run([
        'gate',
        hostile(workspace, 'fills-the-disk'),
        '--budget',
        '10m',
        '--seed',
        '3',
      ]);
      t.equal(ended.code, 3, ended.stderr);
      t.match(ended.stderr, /the disk of .* is almost full/);
      t.notMatch(ended.stderr, /\n\s+at /, 'no stack trace');
      t.same(processesBelow(workspace.dir), []);
    } finally {
      execFileSync('umount', ['-l', workspace.state]);
    }
  },
);

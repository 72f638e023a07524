import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { until } from '../../faults/waiting.js';
import { processesBelow, TestWorkspace } from '../fixtures/kit.js';
import { allProcesses } from '../host/processes.js';
import { packageRoot } from '../host/version.js';

const PROGRAM = join(packageRoot(), 'conformance/fixtures/hostile.mjs');
/** Far above what any of these takes, on a loaded machine too; without a limit a hang would be one. */
const HANG_MS = 120_000;

function newPlace(t: { teardown(remove: () => void): void }): TestWorkspace {
  const place = new TestWorkspace();
  t.teardown(() => place.remove());
  return place;
}

function hostile(place: TestWorkspace, how: string): string {
  return place.target(['{node}', PROGRAM, '--data', '{data}', '--port', '{port}', '--how', how], {
    guarantee: { faults: ['kill'], duplicatesPerCrash: 0, recoverySeconds: 3 },
  });
}

/** Processes of the hostile program that work in this place, whatever their environment says. */
function alive(place: TestWorkspace): number[] {
  return allProcesses().flatMap(({ pid }) => {
    try {
      const words = readFileSync(`/proc/${pid}/cmdline`, 'latin1');
      return words.includes(PROGRAM) && words.includes(place.dir) ? [pid] : [];
    } catch {
      return [];
    }
  });
}

const CASES: [how: string, code: number, said: RegExp][] = [
  ['never-answers', 3, /did not get ready.*running, and not ready on port/],
  ['ready-and-silent', 3, /nothing was confirmed/],
  ['nonsense', 3, /nothing was confirmed/],
  ['ignores-sigterm', 3, /nothing was confirmed/],
  ['forks-away', 3, /did not get ready.*server ended with code 0|nothing was confirmed/],
];

for (const [how, code, said] of CASES) {
  t.test(
    `a target that is '${how}' ends with a word, and leaves nothing`,
    { timeout: HANG_MS },
    async (t) => {
      const place = newPlace(t);
      const ended = await place.run(['gate', hostile(place, how), '--budget', '4s', '--seed', '3']);
      t.equal(ended.code, code, ended.stderr);
      t.match(ended.stderr, said);
      t.notMatch(ended.stderr, /\n\s+at /, 'no stack trace');
      t.same(processesBelow(place.dir), []);
      t.ok(await until(() => alive(place).length === 0, 2000), 'nothing lives on');
    },
  );
}

/** Its server is a correct queue; a second service, of which no port tells, cannot stay up. */
function withDying(place: TestWorkspace, source: string): string {
  const queue = join(packageRoot(), 'conformance/fixtures/queue.mjs');
  return place.target([], {
    services: {
      server: { command: ['{node}', queue, '--data', '{data}', '--port', '{port}'] },
      helper: { command: ['/bin/sh', '-c', source, '{data}'] },
    },
  });
}

t.test(
  'a service without a port that dies right after each start is told',
  { timeout: HANG_MS },
  async (t) => {
    const place = newPlace(t);
    const ended = await place.run([
      'gate',
      // So soon that it has died often enough between faults on a loaded machine, too.
      withDying(place, 'sleep 0.02; exit 7'),
      '--budget',
      '40s',
      '--seed',
      '3',
    ]);
    t.equal(ended.code, 3, ended.stderr);
    t.match(ended.stderr, /helper ended with code 7(, 31 times| right after each of 31 starts)/);
    t.notMatch(ended.stderr, /\n\s+at /, 'no stack trace');
    t.same(processesBelow(place.dir), []);
  },
);

t.test('one that a fault has broken is a recovery that failed', { timeout: HANG_MS }, async (t) => {
  const place = newPlace(t);
  // The first one stays up, and none after it.
  const once = 'test -e "$0/broken" && exit 7; touch "$0/broken"; exec sleep 600';
  const target = withDying(place, `sleep 0.01; ${once}`);
  const ended = await place.run(['gate', target, '--budget', '25s', '--seed', '3', '--json']);
  t.equal(ended.code, 1, ended.stderr);
  // On a slow machine the time for the recovery is over first.
  t.match(ended.stdout, /helper ended with code 7(, \d+ times| right after each of 31 starts)/);
});

const root = process.getuid?.() === 0 ? false : 'mounting a small disk needs root';
t.test(
  'a target that fills the disk is stopped before the disk is full',
  { timeout: HANG_MS, skip: root },
  async (t) => {
    const place = newPlace(t);
    mkdirSync(place.state, { recursive: true });
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=256m', 'plugpull-test', place.state]);
    try {
      const ended = await place.run([
        'gate',
        hostile(place, 'fills-the-disk'),
        '--budget',
        '20s',
        '--seed',
        '3',
      ]);
      t.equal(ended.code, 3, ended.stderr);
      t.match(ended.stderr, /the disk of .* is almost full/);
      t.notMatch(ended.stderr, /\n\s+at /, 'no stack trace');
      t.same(processesBelow(place.dir), []);
    } finally {
      execFileSync('umount', ['-l', place.state]);
    }
  },
);

import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { until } from '../../faults/waiting.js';
import { processesBelow, TestWorkspace } from '../fixtures/kit.js';
import { packageRoot } from '../host/version.js';

const PROGRAM = join(packageRoot(), 'dist/scenarios/cli/main.js');
const QUEUE_PROGRAM = join(packageRoot(), 'dist/reference-impl/synchronous/main.js');
const root = process.getuid?.() === 0 ? false : 'mounting a small disk needs root';
const GATE = ['--budget', '5m', '--rounds', '1', '--injections', '2', '--seed', '3'];

function newWorkspace(t: { teardown(remove: () => void): void }): TestWorkspace {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  return workspace;
}

/** Runs a command of a shell, in which `$KIT`, `$QUEUE` and `$TARGET` are set. */
function shell(workspace: TestWorkspace, script: string) {
  const ended = spawnSync('bash', ['-c', script], {
    cwd: workspace.dir,
    encoding: 'utf8',
    env: {
      ...process.env,
      PLUGPULL_DEBUG: '',
      PLUGPULL_STATE: workspace.state,
      KIT: `${process.execPath} ${PROGRAM}`,
      QUEUE: `${process.execPath} ${QUEUE_PROGRAM}`,
      TARGET: workspace.queue(''),
      GATE: GATE.join(' '),
    },
  });
  return { code: ended.status, stdout: ended.stdout, stderr: ended.stderr };
}

/** What the kit may lack, the exit code, and the one line that it prints. */
const CASES: [what: string, script: string, code: number, line: RegExp][] = [
  ...['gate $TARGET $GATE', 'verify none.json', 'check $TARGET', 'clean', 'doctor', 'replay none.tar.gz'].map(
    (command): [string, string, number, RegExp] => [
      `64 open files, ${command}`,
      `ulimit -n 64; $KIT ${command}`,
      4,
      /may open 64 files, expected at least 256: ulimit -n 1024/,
    ],
  ),
  ['20 open files', 'ulimit -n 20; $KIT verify none.json', 4, /EMFILE/],
  ['64 open files, queue', 'ulimit -n 64; $QUEUE verify --queue none', 4, /EMFILE/],
  ['8 KiB for each file', 'ulimit -f 8; $KIT gate $TARGET $GATE', 4, /cannot write the history: EFBIG/],
  [
    'a state directory that is a file',
    'PLUGPULL_STATE=$TARGET $KIT gate $TARGET $GATE',
    2,
    /expected a directory/,
  ],
  [
    'a state directory that cannot be made',
    'PLUGPULL_STATE=/proc/x $KIT gate $TARGET $GATE',
    2,
    /expected a directory to write to/,
  ],
];

for (const [what, script, code, line] of CASES) {
  t.test(`${what}: one line and exit code ${code}`, async (t) => {
    const workspace = newWorkspace(t);
    const ended = shell(workspace, script);
    t.equal(ended.code, code, ended.stderr);
    // Lines of progress may stand before it.
    t.match(ended.stderr, /^((round|kill)[^\n]*\n)*plugpull[^\n]*\n$/, 'one line');
    t.match(ended.stderr, line);
    t.same(processesBelow(workspace.dir), []);
  });
}

t.test('a full or read-only state directory: one line and exit code 4 or 2', { skip: root }, async (t) => {
  const workspace = newWorkspace(t);
  const disk = join(workspace.dir, 'disk');
  mkdirSync(disk);
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'plugpull-test', disk]);
  try {
    writeFileSync(join(disk, 'filling'), Buffer.alloc(4 << 20));
    const onDisk = `PLUGPULL_STATE=${disk} $KIT gate $TARGET $GATE`;
    const full = shell(workspace, onDisk);
    t.equal(full.code, 4, full.stderr);
    t.match(full.stderr, /^(round[^\n]*\n)*plugpull: [^\n]*ENOSPC[^\n]*\n$/);
    execFileSync('mount', ['-o', 'remount,ro', disk]);
    const readOnly = shell(workspace, `PLUGPULL_STATE=${disk}/state $KIT gate $TARGET $GATE`);
    t.equal(readOnly.code, 2, readOnly.stderr);
    t.match(readOnly.stderr, /^plugpull: [^\n]*EROFS[^\n]*\n$/);
  } finally {
    execFileSync('umount', ['-l', disk]);
  }
});

t.test('output that is closed changes no verdict, and a full /tmp makes none', { skip: root }, async (t) => {
  const workspace = newWorkspace(t);
  const disk = join(workspace.dir, 'disk');
  mkdirSync(disk);
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'plugpull-test', disk]);
  try {
    writeFileSync(join(disk, 'filling'), Buffer.alloc(1 << 20));
    const scripts: [script: string, code: number][] = [
      ['$KIT gate $TARGET $GATE --json >&-', 0],
      ['$KIT gate $TARGET $GATE --json >&- 2>&-', 0],
      ['set -o pipefail; $KIT gate $TARGET $GATE --json | head -c 0', 0],
      [`TMPDIR=${disk} $KIT gate $TARGET $GATE`, 4],
    ];
    for (const [script, code] of scripts) {
      const ended = shell(workspace, script);
      t.equal(ended.code, code, `${script}: ${ended.stderr}`);
      t.notMatch(ended.stderr, /\n\s+at /, 'no stack trace');
    }
  } finally {
    execFileSync('umount', ['-l', disk]);
  }
});

t.test(
  'a kit that can open no more files in the middle of a round fails, and proves no violation',
  async (t) => {
    const workspace = newWorkspace(t);
    const kit = workspace.start(['gate', workspace.queue(''), '--budget', '5m', '--seed', '3']);
    await kit.waitForStderr(/SIGKILL/);
    execFileSync('prlimit', ['--pid', `${kit.child.pid}`, '--nofile=20:4096']);
    const ended = await kit.waitForExit();
    t.equal(ended.code, 4, ended.stderr);
    t.match(ended.stderr, /plugpull: [^\n]*EMFILE/);
    t.notMatch(ended.stderr, /\n\s+at /, 'no stack trace');
    // The kit could not look for the processes of its target. Its watchdog can.
    const isEmpty = () => processesBelow(workspace.dir).length === 0;
    t.ok(await until(isEmpty, 60_000), 'the watchdog ends the target');
  },
);

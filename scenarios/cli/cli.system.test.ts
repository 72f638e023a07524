import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { until } from '../../faults/waiting.js';
import { processesBelow, TestWorkspace } from '../fixtures/kit.js';

function newWorkspace(t: { teardown(remove: () => void): void }): TestWorkspace {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  return workspace;
}

/**
 * Waits until a process of the target runs: between a kill and the next start no process exists for a moment.
 */
async function targetRuns(workspace: TestWorkspace): Promise<boolean> {
  return until(() => processesBelow(workspace.dir).length > 0, 10_000);
}

/** Checks that the error is one line, without a stack. Lines of progress do not count. */
function oneLine(stderr: string): boolean {
  return (
    stderr
      .trim()
      .split('\n')
      // Lines of progress.
      .filter((line) => !/^(?:round |services\.)/.test(line)).length === 1
  );
}

t.test('wrong usage is reported in one line with exit code 2', async (t) => {
  const workspace = newWorkspace(t);
  const target = workspace.queue('');
  mkdirSync(join(workspace.dir, 'full'));
  writeFileSync(join(workspace.dir, 'full', 'file'), '');
  writeFileSync(join(workspace.dir, 'bad.json'), '{ "name": ');
  const cases: [string[], RegExp][] = [
    [['gate', target, '--budget', 'soon'], /--budget.*60s/],
    [['gate', target, '--budget', '501h'], /--budget.*at most 500h/],
    [['gate', target, '--profile', 'all'], /--profile all: expected containers/],
    [['gate', target, '--profile', 'containers', '--runtime', 'process'], /leave out --runtime process/],
    [['gate', target, '--profile', 'containers', '--power', 'flaky'], /--power flaky: .*did you mean flakey/],
    [['gate', target, '--fs', 'ext4:commit=1,ro'], /--fs.*written to/],
    [['sweep', target, '--faults', 'kill-one'], /--faults kill-one: expected kill-syscall or io-error/],
    [['systems', 'redis-no', '--faults', 'earthquake'], /earthquake: no run has one, expected some of kill/],
    [['gate', target, '--seed', '-1'], /--seed.*whole number/],
    [['gate', target, '--injections', 'few'], /--injections.*'few' is invalid.*whole number from 1/],
    [['gate', target, '--rounds', '0'], /--rounds.*'0' is invalid.*whole number from 1/],
    [['sweep', target, '--calls', 'many'], /--calls.*'many' is invalid.*whole number from 1/],
    [['sweep', target, '--each', '-1'], /--each.*'-1' is invalid.*whole number from 1/],
    [['explore', target, '--states', '1.5'], /--states.*'1\.5' is invalid.*whole number from 1/],
    [['gate', target, '--faults', 'kill,,'], /--faults.*commas/],
    [['gate', target, '--faults', 'earthquake'], /earthquake.*kill/],
    [['gate', target, '--faults', 'clock'], /clock.*does not claim.*kill/],
    [
      ['gate', target, '--faults', 'kill-one:worker'],
      /kill-one:worker: no such service, expected one of server/,
    ],
    [['gate', target, '--runtime', 'moon'], /moon.*process, docker or vm/],
    [['gate', target, '--out', 'full'], /--out full.*empty/],
    [['gate', target, '--out', 'bad.json'], /--out bad\.json: expected a directory/],
    [['gate', target, '--out', 'bad.json/below'], /--out bad\.json\/below: expected a directory.*ENOTDIR/],
    [
      ['certify', target, '--out', '/proc/x/y'],
      /--out \/proc\/x\/y: expected a directory to write to: ENOENT/,
    ],
    [
      ['gate', target, '--reporter', 'junit:/proc/x/y.xml'],
      /--reporter junit:\/proc\/x\/y\.xml: expected a file/,
    ],
    [
      ['init', '--ci', 'none', '--name', 'a', '--protocol', 'nats', '--services', 'one', '--out', '/proc/x'],
      /--out \/proc\/x: .*ENOENT.*nothing was written/,
    ],
    [['gate', 'missing.json'], /missing\.json/],
    [['gate', 'bad.json'], /bad\.json.*JSON/],
    [['gate', target, '--nonsense'], /--nonsense/],
    [
      ['gate', workspace.target(['/no/such/program', '{port}'])],
      /services\.server\.command.*no\/such\/program/,
    ],
    [['planted', 'no-such-bug'], /no-such-bug/],
    [['fly'], /fly/],
  ];
  for (const [args, expected] of cases) {
    const { code, stderr, stdout } = await workspace.run(args);
    t.equal(code, 2, args.join(' '));
    t.match(stderr, expected);
    t.ok(oneLine(stderr), stderr);
    t.equal(stdout, '');
  }
});

t.test('a runtime that this machine does not have gives the exit code of not measured', async (t) => {
  const workspace = newWorkspace(t);
  // The user may have built the lab VM. Nothing is built in this cache directory.
  const { XDG_CACHE_HOME } = process.env;
  t.teardown(() => {
    if (XDG_CACHE_HOME === undefined) delete process.env.XDG_CACHE_HOME;
    else process.env.XDG_CACHE_HOME = XDG_CACHE_HOME;
  });
  process.env.XDG_CACHE_HOME = join(workspace.dir, 'cache');
  const { code, stderr } = await workspace.run(['gate', workspace.queue(''), '--runtime', 'vm']);
  t.equal(code, 3);
  t.match(stderr, /--runtime vm/);
});

t.test('a target that dies at once, or never gets ready, is reported within the budget', async (t) => {
  const workspace = newWorkspace(t);
  const cases: [string, RegExp][] = [
    ['process.exit(7)', /not get ready.*server.*code 7/],
    ['setInterval(() => {}, 1000)', /not get ready.*running, and not ready on port/],
  ];
  for (const [source, expected] of cases) {
    const target = workspace.target(['{node}', '-e', source, '{port}']);
    const { code, stderr } = await workspace.run(['gate', target, '--budget', '3s']);
    t.equal(code, 3, stderr);
    t.match(stderr, expected);
    t.ok(oneLine(stderr), stderr);
    t.same(processesBelow(workspace.dir), []);
  }
});

t.test('a closed stdout ends the output without an error, and does not change the exit code', async (t) => {
  const workspace = newWorkspace(t);
  const kit = workspace.start(['doctor']);
  kit.child.stdout?.destroy();
  const { code, stderr } = await kit.waitForExit();
  t.equal(code, 0);
  t.equal(stderr, '');
});

t.test('a reporter that fails, and a lost stdout, do not change the exit code of a violation', async (t) => {
  const workspace = newWorkspace(t);
  const limits = ['--seed', '7', '--injections', '30', '--budget', '10m', '--faults', 'kill-one'];
  const before = process.env.GITHUB_STEP_SUMMARY;
  process.env.GITHUB_STEP_SUMMARY = join(workspace.dir, 'missing', 'summary.md');
  t.teardown(() => {
    if (before === undefined) delete process.env.GITHUB_STEP_SUMMARY;
    else process.env.GITHUB_STEP_SUMMARY = before;
  });
  const kit = workspace.start([
    ...['gate', workspace.queue('confirms-early'), ...limits],
    ...['--reporter', 'github,list,junit:r.xml,json:r.json'],
  ]);
  kit.child.stdout?.destroy();
  const { code, stderr } = await kit.waitForExit();
  t.equal(code, 1, stderr);
  t.match(stderr, /^warning: reporter github: not written: Unable to access summary file/m);
  t.match(stderr, /^warning: stdout: the report is not complete: .*EPIPE/m);
  t.equal([...stderr.matchAll(/^warning: /gm)].length, 2, 'one line for each');
  t.match(stderr, /^fail: PP-1/m, 'the list is written');
  t.match(readFileSync(join(workspace.dir, 'r.xml'), 'utf8'), /<failure /);
  t.match(JSON.parse(readFileSync(join(workspace.dir, 'r.json'), 'utf8')), { verdict: 'fail' });
});

t.test('a failure while old evidence is removed is a warning, and the exit code stays', async (t) => {
  const workspace = newWorkspace(t);
  const load =
    "if (url.endsWith('/clean/evidence.js')) throw new Error('planted'); return next(url, context);";
  const hooks = `data:text/javascript,export async function load(url, context, next) { ${load} }`;
  const program = `import { register } from 'node:module'; register(${JSON.stringify(hooks)});`;
  process.env.NODE_OPTIONS = `--import=data:text/javascript,${encodeURIComponent(program)}`;
  t.teardown(() => {
    delete process.env.NODE_OPTIONS;
  });
  const target = workspace.queue('confirms-early');
  const { code, stderr } = await workspace.run(['gate', target, '--rounds', '3', '--budget', '60s']);
  t.equal(code, 1, stderr);
  t.match(stderr, /^warning: old evidence was not removed: planted$/m);
});

t.test(
  'a wrong PLUGPULL_LIMITS is reported in one line by every command, before anything runs',
  async (t) => {
    const workspace = newWorkspace(t);
    t.teardown(() => {
      delete process.env.PLUGPULL_LIMITS;
    });
    for (const text of ['nonsense', 'kept-runs=many', 'kept-runs=-1']) {
      process.env.PLUGPULL_LIMITS = text;
      for (const command of [
        'gate',
        'certify',
        'clean',
        'doctor',
        'planted',
        'systems',
        'replay x',
        'verify x',
      ]) {
        const { code, stdout, stderr } = await workspace.run(command.split(' '));
        t.equal(code, 2, `${text} ${command}`);
        t.equal(stdout, '');
        t.match(stderr, new RegExp(`^plugpull: PLUGPULL_LIMITS: ${text}: expected NAME=NUMBER [^\n]*\n$`));
      }
    }
  },
);

t.test('the report of a failed install command contains the output of the command', async (t) => {
  const workspace = newWorkspace(t);
  const install = ['{node}', '-e', 'console.error("no space for a queue"); process.exit(5)'];
  const { code, stderr } = await workspace.run(['gate', workspace.target(['{node}', '{port}'], { install })]);
  t.equal(code, 3);
  t.match(stderr, /install.*code 5.*no space for a queue/);
});

t.test('the first Ctrl-C stops everything in order and leaves no process and no resource', async (t) => {
  const workspace = newWorkspace(t);
  const kit = workspace.start(['gate', workspace.queue(''), '--budget', '10m']);
  await kit.waitForStderr(/^kill/m);
  t.ok(await targetRuns(workspace), 'the target was running');
  kit.child.kill('SIGINT');
  const { code, stderr, stdout } = await kit.waitForExit();
  t.equal(code, 130, stderr);
  t.equal(stdout, '');
  t.same(processesBelow(workspace.dir), []);
  t.same(workspace.runs(), []);
  t.same(readdirSync(join(workspace.state, 'runs')), []);
});

for (const [command, dir, started] of [
  ['certify', 'certificates', /^level process/m],
  ['sweep', 'runs', /^kill-syscall|system calls to try/m],
] as const) {
  t.test(`a ${command} that is interrupted leaves nothing behind`, async (t) => {
    const workspace = newWorkspace(t);
    const kit = workspace.start([command, workspace.queue(''), '--budget', '10m'], { group: true });
    await kit.waitForStderr(started);
    process.kill(-(kit.child.pid ?? 0), 'SIGINT');
    const { code, stderr } = await kit.waitForExit();
    t.equal(code, 130, stderr);
    t.same(processesBelow(workspace.dir), []);
    t.same(readdirSync(join(workspace.state, dir)), []);
    t.same(workspace.runs(), []);
  });
}

t.test('the second Ctrl-C ends the kit at once, and the target is still killed', async (t) => {
  const workspace = newWorkspace(t);
  const kit = workspace.start(['gate', workspace.queue(''), '--budget', '10m']);
  await kit.waitForStderr(/^kill/m);
  kit.child.kill('SIGINT');
  kit.child.kill('SIGINT');
  t.equal((await kit.waitForExit()).code, 130);
  t.ok(await until(() => processesBelow(workspace.dir).length === 0, 5000));
  t.equal((await workspace.run(['clean'])).code, 0);
  t.same(workspace.runs(), []);
});

t.test('SIGTERM stops everything in order too, with exit code 143', async (t) => {
  const workspace = newWorkspace(t);
  const kit = workspace.start(['gate', workspace.queue(''), '--budget', '10m']);
  await kit.waitForStderr(/^round 1/m);
  kit.child.kill('SIGTERM');
  t.equal((await kit.waitForExit()).code, 143);
  t.same(processesBelow(workspace.dir), []);
});

t.test('clean removes what a killed kit left behind, and nothing of a running kit', async (t) => {
  const workspace = newWorkspace(t);
  const target = workspace.queue('');
  const killed = workspace.start(['gate', target, '--budget', '10m']);
  await killed.waitForStderr(/^round 1/m);
  t.ok(await targetRuns(workspace));
  await killed.killWithWatchdog();
  t.not(processesBelow(workspace.dir).length, 0, 'the target is still alive after the kit was killed');
  const [leftRun] = readdirSync(join(workspace.state, 'runs'));
  const running = workspace.start(['gate', target, '--budget', '10m', '--json']);
  await running.waitForStderr(/^kill/m);

  const { code, stdout } = await workspace.run(['clean', '--json']);
  t.equal(code, 0);
  const cleaned = JSON.parse(stdout) as { runs: { runId: string; processes: number }[]; inUse: string[] };
  t.match(cleaned.runs, [{ runId: leftRun }]);
  t.ok((cleaned.runs[0]?.processes ?? 0) > 0);
  t.equal(cleaned.inUse.length, 1);
  t.notOk(readdirSync(join(workspace.state, 'runs')).includes(leftRun ?? ''));
  await running.waitForAnother(/^kill/gm);
  running.child.kill('SIGINT');
  t.equal((await running.waitForExit()).code, 130, 'clean did not disturb the other run');

  const again = await workspace.run(['clean']);
  t.match(again, { code: 0, stdout: 'nothing was left\n' });
  t.same(processesBelow(workspace.dir), []);
});

t.test('two gates at the same time do not disturb each other', async (t) => {
  const workspace = newWorkspace(t);
  const target = workspace.queue('');
  const runs = ['a', 'b'].map(() =>
    workspace.run(['gate', target, '--rounds', '1', '--budget', '10m', '--seed', '5']),
  );
  for (const { code, stderr } of await Promise.all(runs)) t.equal(code, 0, stderr);
});

t.test('doctor lists what this machine has, and for each missing item the reason and a remedy', async (t) => {
  const workspace = newWorkspace(t);
  const { code, stdout } = await workspace.run(['doctor', '--json']);
  t.equal(code, 0);
  type Capabilities = Record<string, { name: string; available: boolean; why?: string; remedy?: string }[]>;
  const { hungDisks, ...report } = JSON.parse(stdout) as Capabilities & { hungDisks: never };
  t.ok(Array.isArray(hungDisks));
  t.same(Object.keys(report), ['runtimes', 'faults', 'power', 'reboot', 'nodes']);
  t.ok(report.runtimes?.some(({ name, available }) => name === 'process' && available));
  for (const { name, available, why, remedy } of Object.values(report).flat()) {
    t.ok(available || (why && remedy), name);
  }
  t.match((await workspace.run(['doctor'])).stdout, /Runtimes\n {2}process +yes/);
});

t.test('the help names every limit, and shows the defaults as a user would type them', async (t) => {
  const workspace = newWorkspace(t);
  const cases: [string, RegExp[]][] = [
    ['gate', [/--rounds <n>/, /\(default: 90s\)/, /\(default: process\)/]],
    ['sweep', [/--calls <n>/, /--each <n>/, /\(default: 60s\)/]],
    ['explore', [/--states <n>/, /\(default:\s+60s\)/]],
    ['planted', [/\(default:\s+gate,simulate,explore\)/]],
  ];
  for (const [command, expected] of cases) {
    const { code, stdout } = await workspace.run([command, '--help']);
    t.equal(code, 0);
    for (const text of expected) t.match(stdout, text, command);
  }
});

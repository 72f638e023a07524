import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { until } from '../../faults/waiting.js';
import { processesBelow, TestWorkspace } from '../fixtures/kit.js';

function newPlace(t: { teardown(remove: () => void): void }): TestWorkspace {
  const place = new TestWorkspace();
  t.teardown(() => place.remove());
  return place;
}

/** Between a kill and the start after it there is no process for a moment. */
async function targetRuns(place: TestWorkspace): Promise<boolean> {
  return until(() => processesBelow(place.dir).length > 0, 10_000);
}

/** One line for people, no stack. */
function oneLine(stderr: string): boolean {
  return (
    stderr
      .trim()
      .split('\n')
      .filter((line) => !line.startsWith('round ')).length === 1
  );
}

t.test('bad usage gets one clear line and exit code 2', async (t) => {
  const place = newPlace(t);
  const target = place.queue('');
  mkdirSync(join(place.dir, 'full'));
  writeFileSync(join(place.dir, 'full', 'file'), '');
  writeFileSync(join(place.dir, 'bad.json'), '{ "name": ');
  const cases: [string[], RegExp][] = [
    [['gate', target, '--budget', 'soon'], /--budget.*60s/],
    [['gate', target, '--budget', '501h'], /--budget.*at most 500h/],
    [['gate', target, '--fs', 'ext4:commit=1,ro'], /--fs.*written to/],
    [['sweep', target, '--faults', 'kill-one'], /--faults kill-one: expected kill-syscall or io-error/],
    [['systems', 'redis-no', '--faults', 'earthquake'], /earthquake: no run has one, expected some of kill/],
    [['gate', target, '--seed', '-1'], /--seed.*whole number/],
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
    [['init', '--out', '/proc/x/y.json'], /--out \/proc\/x\/y\.json: expected a file/],
    [['gate', 'missing.json'], /missing\.json/],
    [['gate', 'bad.json'], /bad\.json.*JSON/],
    [['gate', target, '--nonsense'], /--nonsense/],
    [['gate', place.target(['/no/such/program', '{port}'])], /services\.server\.command.*no\/such\/program/],
    [['planted', 'no-such-bug'], /no-such-bug/],
    [['fly'], /fly/],
  ];
  for (const [args, expected] of cases) {
    const { code, stderr, stdout } = await place.run(args);
    t.equal(code, 2, args.join(' '));
    t.match(stderr, expected);
    t.ok(oneLine(stderr), stderr);
    t.equal(stdout, '');
  }
});

t.test('what this machine or version does not have is not measured', async (t) => {
  const place = newPlace(t);
  const { code, stderr } = await place.run(['gate', place.queue(''), '--runtime', 'vm']);
  t.equal(code, 3);
  t.match(stderr, /--runtime vm/);
});

t.test('a target that dies at once, or never gets ready, is told within the budget', async (t) => {
  const place = newPlace(t);
  const cases: [string, RegExp][] = [
    ['process.exit(7)', /not get ready.*server.*code 7/],
    ['setInterval(() => {}, 1000)', /not get ready.*running, and not ready on port/],
  ];
  for (const [source, expected] of cases) {
    const target = place.target(['{node}', '-e', source, '{port}']);
    const { code, stderr } = await place.run(['gate', target, '--budget', '3s']);
    t.equal(code, 3, stderr);
    t.match(stderr, expected);
    t.ok(oneLine(stderr), stderr);
    t.same(processesBelow(place.dir), []);
  }
});

t.test('whoever stops reading ends what is said, and nothing else', async (t) => {
  const place = newPlace(t);
  const kit = place.start(['doctor']);
  kit.child.stdout?.destroy();
  const { code, stderr } = await kit.waitForExit();
  t.equal(code, 0);
  t.equal(stderr, '');
});

t.test('an install command that fails is told with its own words', async (t) => {
  const place = newPlace(t);
  const install = ['{node}', '-e', 'console.error("no room for a queue"); process.exit(5)'];
  const { code, stderr } = await place.run(['gate', place.target(['{node}', '{port}'], { install })]);
  t.equal(code, 3);
  t.match(stderr, /install.*code 5.*no room for a queue/);
});

t.test('the first Ctrl-C unwinds: nothing lives on, nothing is left', async (t) => {
  const place = newPlace(t);
  const kit = place.start(['gate', place.queue(''), '--budget', '60s']);
  await kit.waitForStderr(/^kill/m);
  t.ok(await targetRuns(place), 'the target was running');
  kit.child.kill('SIGINT');
  const { code, stderr, stdout } = await kit.waitForExit();
  t.equal(code, 130, stderr);
  t.equal(stdout, '');
  t.same(processesBelow(place.dir), []);
  t.same(readdirSync(join(place.state, 'residue')), []);
  t.same(readdirSync(join(place.state, 'runs')), []);
});

for (const [command, dir, begun] of [
  ['certify', 'certificates', /^level process/m],
  ['sweep', 'runs', /^kill-syscall|system calls to try/m],
] as const) {
  t.test(`a ${command} that is interrupted leaves nothing`, async (t) => {
    const place = newPlace(t);
    const kit = place.start([command, place.queue(''), '--budget', '60s'], { group: true });
    await kit.waitForStderr(begun);
    process.kill(-(kit.child.pid ?? 0), 'SIGINT');
    const { code, stderr } = await kit.waitForExit();
    t.equal(code, 130, stderr);
    t.same(processesBelow(place.dir), []);
    t.same(readdirSync(join(place.state, dir)), []);
    t.same(readdirSync(join(place.state, 'residue')), []);
  });
}

t.test('the second Ctrl-C ends at once, and kills the target all the same', async (t) => {
  const place = newPlace(t);
  const kit = place.start(['gate', place.queue(''), '--budget', '60s']);
  await kit.waitForStderr(/^kill/m);
  kit.child.kill('SIGINT');
  kit.child.kill('SIGINT');
  t.equal((await kit.waitForExit()).code, 130);
  t.ok(await until(() => processesBelow(place.dir).length === 0, 5000));
  t.equal((await place.run(['clean'])).code, 0);
  t.same(readdirSync(join(place.state, 'residue')), []);
});

t.test('SIGTERM unwinds too, with its own exit code', async (t) => {
  const place = newPlace(t);
  const kit = place.start(['gate', place.queue(''), '--budget', '60s']);
  await kit.waitForStderr(/^round 1/m);
  kit.child.kill('SIGTERM');
  t.equal((await kit.waitForExit()).code, 143);
  t.same(processesBelow(place.dir), []);
});

t.test('what a killed kit leaves is removed by clean, and a kit that lives keeps all it has', async (t) => {
  const place = newPlace(t);
  const target = place.queue('');
  const killed = place.start(['gate', target, '--budget', '60s']);
  await killed.waitForStderr(/^round 1/m);
  t.ok(await targetRuns(place));
  killed.child.kill('SIGKILL');
  await killed.waitForExit();
  t.not(processesBelow(place.dir).length, 0, 'the target lives on without the kit');
  const [leftRun] = readdirSync(join(place.state, 'runs'));
  const living = place.start(['gate', target, '--budget', '8s', '--json']);
  await living.waitForStderr(/^kill/m);

  const { code, stdout } = await place.run(['clean', '--json']);
  t.equal(code, 0);
  const cleaned = JSON.parse(stdout) as { runs: { runId: string; processes: number }[]; inUse: string[] };
  t.match(cleaned.runs, [{ runId: leftRun }]);
  t.ok((cleaned.runs[0]?.processes ?? 0) > 0);
  t.equal(cleaned.inUse.length, 1);
  t.notOk(readdirSync(join(place.state, 'runs')).includes(leftRun ?? ''));
  t.equal((await living.waitForExit()).code, 0, 'the other run went on undisturbed');

  const again = await place.run(['clean']);
  t.match(again, { code: 0, stdout: 'nothing was left\n' });
  t.same(processesBelow(place.dir), []);
});

t.test('two gates at once do not meet', async (t) => {
  const place = newPlace(t);
  const target = place.queue('');
  const runs = ['a', 'b'].map(() =>
    place.run(['gate', target, '--rounds', '1', '--budget', '60s', '--seed', '5']),
  );
  for (const { code, stderr } of await Promise.all(runs)) t.equal(code, 0, stderr);
});

t.test('doctor names what is there, and of what is not why and how to get it', async (t) => {
  const place = newPlace(t);
  const { code, stdout } = await place.run(['doctor', '--json']);
  t.equal(code, 0);
  const report = JSON.parse(stdout) as Record<
    string,
    { name: string; available: boolean; why?: string; remedy?: string }[]
  >;
  t.same(Object.keys(report), ['runtimes', 'faults', 'power']);
  t.ok(report.runtimes?.some(({ name, available }) => name === 'process' && available));
  for (const { name, available, why, remedy } of Object.values(report).flat()) {
    t.ok(available || (why && remedy), name);
  }
  t.match((await place.run(['doctor'])).stdout, /Runtimes\n {2}process +yes/);
});

t.test('help names every limit, and defaults as they are typed', async (t) => {
  const place = newPlace(t);
  const cases: [string, RegExp[]][] = [
    ['gate', [/--rounds <n>/, /\(default: 90s\)/, /\(default: process\)/]],
    ['sweep', [/--calls <n>/, /--each <n>/, /\(default: 60s\)/]],
    ['explore', [/--states <n>/, /\(default:\s+60s\)/]],
    ['planted', [/\(default:\s+gate,simulate,explore\)/]],
  ];
  for (const [command, expected] of cases) {
    const { code, stdout } = await place.run([command, '--help']);
    t.equal(code, 0);
    for (const text of expected) t.match(stdout, text, command);
  }
});

t.test('queue passes the rest of the line, and the exit code, through', async (t) => {
  const place = newPlace(t);
  const help = await place.run(['queue', '--help']);
  t.equal(help.code, 0);
  t.match(help.stdout, /install/);
  const wrong = await place.run(['queue', 'install', '--no-such-flag']);
  t.equal(wrong.code, 2);
});

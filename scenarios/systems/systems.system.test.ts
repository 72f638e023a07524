import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { loadTarget } from '../../conformance/target-file/load.js';
import { commandLine } from '../host/command-line.js';
import { unexpectedReport } from '../report/systems-report.js';
import { processRuntime } from '../runtime/process/process-runtime.js';
import { loadExpectedSystems, SYSTEMS_DIR } from './expected.js';
import { compareWithExpected, lastLogLines, measureSystem } from './measure.js';

const ALL_NAMES = Object.keys(
  JSON.parse(readFileSync(join(SYSTEMS_DIR, 'expected.json'), 'utf8')) as Record<string, unknown>,
);

t.test('every system in expected.json has a target file that claims the faults of its runs', async (t) => {
  const systems = loadExpectedSystems(ALL_NAMES);
  t.ok(systems.length > 5);
  for (const { name, runs } of systems) {
    const target = loadTarget(join(SYSTEMS_DIR, `${name}.json`));
    t.equal(target.name, name);
    for (const { faults, verdict, red } of runs) {
      t.ok(
        faults.every((fault) => target.guarantee.faults.includes(fault)),
        `${name}: ${faults.join(', ')}`,
      );
      t.equal(red.length > 0, verdict === 'fail', `${name}: a failure names its requirement`);
    }
  }
});

t.test('an invalid expected.json and an unknown name are rejected', async (t) => {
  t.throws(() => loadExpectedSystems(['mainframe']), {
    code: 'bad-usage',
    message: /mainframe.*redis-always/,
  });
  const dir = mkdtempSync(join(tmpdir(), 'plugpull-expected-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  t.throws(() => loadExpectedSystems([], dir), { code: 'bad-target' });
  writeFileSync(join(dir, 'expected.json'), '{ "x": { "program": "x", "package": "x", "runs": [] } }');
  t.throws(() => loadExpectedSystems([], dir), { code: 'bad-target', message: /x\.runs/ });
  const run = { faults: ['kill'], verdict: 'pass', budgetSeconds: 6, reason: 'it syncs', byChance: ['PP-1'] };
  const earlier = { x: { program: 'x', package: 'x', runs: [run] } };
  writeFileSync(join(dir, 'expected.json'), JSON.stringify(earlier));
  t.throws(() => loadExpectedSystems([], dir), {
    exitCode: 2,
    message: /^\S+expected\.json: x\.runs\.0: Unrecognized key: "byChance"$/,
  });
});

t.test('a run that is only for named systems is left out when no system is named', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'plugpull-expected-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  const run = { faults: ['kill'], verdict: 'pass', budgetSeconds: 6, reason: 'it syncs' };
  const slow = { ...run, faults: ['power-cut'], onlyNamed: 'it takes two minutes' };
  const base = { program: 'x', package: 'x' };
  const file = { x: { ...base, runs: [run, slow] }, y: { ...base, runs: [slow] } };
  writeFileSync(join(dir, 'expected.json'), JSON.stringify(file));
  const planned = (names: string[]) =>
    loadExpectedSystems(names, dir).map(({ name, runs }) => [name, ...runs.flatMap(({ faults }) => faults)]);
  t.strictSame(planned([]), [['x', 'kill']]);
  t.strictSame(planned(['y', 'x']), [
    ['x', 'kill', 'power-cut'],
    ['y', 'power-cut'],
  ]);
});

t.test('a result is as expected only with the right verdict and the right failed requirements', async (t) => {
  const gateResult = (verdict: 'pass' | 'fail' | 'not-measured', red: readonly string[] = []) => ({
    verdict,
    why: 'because',
    requirements: red.map((id) => ({ id, verdict: 'fail' as const, why: '' })),
  });
  const outcome = (...[result, run]: Parameters<typeof compareWithExpected>) =>
    compareWithExpected(result, run).outcome;
  const durable = { verdict: 'pass', red: [] } as const;
  const lossy = { verdict: 'fail', red: ['PP-1' as const, 'PP-12' as const] } as const;
  const run = (from: typeof durable | typeof lossy, mayFail: 'PP-5'[] = []) => ({
    ...from,
    red: [...from.red],
    mayFail,
  });
  t.equal(outcome(gateResult('fail', ['PP-5']), run(durable, ['PP-5'])), 'as-expected');
  t.equal(outcome(gateResult('fail', ['PP-5', 'PP-1']), run(durable, ['PP-5'])), 'unexpected');
  t.equal(outcome(gateResult('not-measured'), run(durable, ['PP-5'])), 'unexpected');
  t.equal(
    outcome(gateResult('fail', ['PP-5']), run(lossy, ['PP-5'])),
    'as-expected',
    'the gate ended with a requirement of mayFail',
  );
  t.equal(outcome(gateResult('fail', ['PP-5']), run(lossy)), 'unexpected');
  t.equal(outcome(gateResult('fail', ['PP-5', 'PP-1']), run(lossy, ['PP-5'])), 'as-expected');
  t.equal(outcome(gateResult('pass'), run(durable)), 'as-expected');
  t.equal(outcome(gateResult('fail', ['PP-1']), run(durable)), 'unexpected');
  t.equal(outcome(gateResult('not-measured'), run(durable)), 'unexpected');
  t.equal(outcome(gateResult('fail', ['PP-1', 'PP-12']), run(lossy)), 'as-expected');
  t.equal(outcome(gateResult('fail', ['PP-1']), run(lossy)), 'as-expected');
  t.equal(outcome(gateResult('fail', ['PP-1', 'PP-10']), run(lossy)), 'unexpected');
  t.equal(outcome(gateResult('pass'), run(lossy)), 'unexpected');
});

t.test('a system that is not installed is not measured', async (t) => {
  const [system] = loadExpectedSystems(['redis-always']);
  const [run] = system?.runs ?? [];
  if (system === undefined || run === undefined) throw new Error('expected redis-always in expected.json');
  const done = await measureSystem({ ...system, program: 'no-such-program' }, run, {
    runtime: processRuntime,
    power: 'blocklog',
    seed: 1,
    signal: new AbortController().signal,
    progress: () => {},
  });
  t.match(done, { outcome: 'not-measured', why: /no-such-program is not installed.*redis-server/ });
  const [exim] = loadExpectedSystems(['exim']);
  if (exim === undefined) throw new Error('expected exim in expected.json');
  const inContainer = await measureSystem(exim, run, {
    runtime: { ...processRuntime, name: 'docker' },
    power: 'blocklog',
    seed: 1,
    signal: new AbortController().signal,
    progress: () => {},
  });
  t.match(inContainer, { outcome: 'not-measured', why: /exim has no image.*process only/ });
});

t.test('an unexpected result is reported with its violations and the last lines of the logs', async (t) => {
  const evidence = mkdtempSync(join(tmpdir(), 'plugpull-evidence-'));
  t.teardown(() => rmSync(evidence, { recursive: true, force: true }));
  t.strictSame(lastLogLines(evidence), []);
  for (const [round, text] of [
    ['round-9', 'of an earlier round\n'],
    ['round-10', `${'x'.repeat(100_000)}\n${Array.from({ length: 20 }, (_, n) => `line ${n}\n`).join('')}`],
  ] as const) {
    mkdirSync(join(evidence, round, 'logs'), { recursive: true });
    writeFileSync(join(evidence, round, 'logs', 'install.log'), '');
    writeFileSync(join(evidence, round, 'logs', 'server.log'), `${text}fatal: ${'y'.repeat(1000)}\n`);
  }
  const tails = lastLogLines(evidence);
  t.strictSame(
    tails.map(({ file }) => file),
    ['round-10/logs/server.log'],
    'only the non-empty logs of the last round',
  );
  const violations = [{ requirement: 'PP-10', what: 'not ready 30.02 s after fault 4: not running: server' }];
  const report = unexpectedReport(
    { violations, evidence, bundle: '/b.tar.gz', replay: 'plugpull gate x.json --seed 1' },
    tails,
  );
  t.equal(report[0], 'PP-10: not ready 30.02 s after fault 4: not running: server');
  t.equal(report[2], '  line 16');
  t.match(report[6], /^ {2}fatal: y{293}$/);
  t.strictSame(report.slice(7), [
    `evidence: ${evidence}`,
    `this failure again: ${commandLine('replay', '/b.tar.gz')}`,
    'run it again: plugpull gate x.json --seed 1',
  ]);
});

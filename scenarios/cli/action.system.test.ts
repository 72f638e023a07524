import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, existsSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { parse } from 'yaml';
import { removeTree } from '../../faults/files/remove-tree.js';
import { packageRoot } from '../host/version.js';

const ACTION = join(packageRoot(), '.github/actions/gate');
const TIMEOUT_MS = 300_000;

interface Step {
  run?: string;
  uses?: string;
  shell?: string;
}

/** What a job of GitHub would show after the action. */
interface Job {
  conclusion: string;
  outputs: Record<string, string>;
  summary: string;
  log: string;
  workspace: string;
  artifact: string;
}

/** Runs the action as GitHub would, with a target of conformance/fixtures as the repository of the job. */
async function runAction(
  test: Test,
  fixture: string,
  inputs: Record<string, string>,
  files: Record<string, string> = {},
): Promise<Job> {
  const workspace = mkdtempSync(join(tmpdir(), 'plugpull-action-'));
  test.teardown(() => removeTree(workspace));
  const fixtures = join(packageRoot(), 'conformance/fixtures');
  copyFileSync(join(fixtures, 'queue.mjs'), join(workspace, 'queue.mjs'));
  copyFileSync(join(fixtures, `${fixture}.json`), join(workspace, `${fixture}.json`));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(workspace, name), text);
  const [artifacts, summary] = [join(workspace, 'artifacts'), join(workspace, 'summary.md')];
  const given = { target: `${fixture}.json`, engines: 'false', ...inputs };
  const child = spawn(
    process.execPath,
    [
      join(packageRoot(), '.ci/run-action'),
      ACTION,
      ...['--workspace', workspace, '--artifacts', artifacts, '--summary', summary],
      ...Object.entries(given).flatMap(([name, value]) => ['--with', `${name}=${value}`]),
    ],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  );
  let log = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => {
      log += chunk.toString();
    });
  const [code] = (await once(child, 'close')) as [number | null];
  const last = /^--- (\{.*\})$/m.exec(log)?.[1];
  if (last === undefined) throw new Error(`exit code ${code}: ${log}`);
  const { conclusion, outputs } = JSON.parse(last) as Pick<Job, 'conclusion' | 'outputs'>;
  test.equal(code === 0, conclusion === 'success', 'the exit code is that of the job');
  return {
    ...{ conclusion, outputs, log, workspace },
    summary: existsSync(summary) ? readFileSync(summary, 'utf8') : '',
    artifact: join(artifacts, 'plugpull'),
  };
}

t.test(
  'a passing target: the job succeeds, with a summary and a report',
  { timeout: TIMEOUT_MS },
  async (t) => {
    const job = await runAction(t, 'correct', { budget: '30s', faults: 'kill' });
    t.match(job, { conclusion: 'success', outputs: { 'exit-code': '0', verdict: 'pass' } }, job.log);
    t.match(job.summary, /plugpull gate: fixture&#45;correct|plugpull gate: fixture-correct/);
    t.match(job.summary, /PP-1 no confirmed message is lost/);
    t.match(readFileSync(join(job.artifact, 'plugpull-report.html'), 'utf8'), /id="plugpull-data"/);
    t.notOk(existsSync(join(job.artifact, 'bundle.tar.gz')), 'a pass leaves no bundle');
  },
);

t.test(
  'a failing target: the job fails, with the report and the bundle',
  { timeout: TIMEOUT_MS },
  async (t) => {
    const job = await runAction(t, 'corrupts', { budget: '60s', report: 'out/report.json' });
    t.match(job, { conclusion: 'failure', outputs: { 'exit-code': '1', verdict: 'fail' } }, job.log);
    t.match(job.log, /^::error .*PP-4/m, 'the requirement is an annotation');
    t.match(JSON.parse(readFileSync(join(job.artifact, 'report.json'), 'utf8')), { verdict: 'fail' });
    t.ok(existsSync(join(job.artifact, 'bundle.tar.gz')));
    t.match(job.summary, /replay bundle\.tar\.gz --trust/);
  },
);

t.test(
  'with fail-on-not-measured, a verdict of not measured fails the job',
  { timeout: TIMEOUT_MS },
  async (t) => {
    const measured = { budget: '5s', faults: 'kill' };
    const lenient = await runAction(t, 'never-confirms', measured);
    t.match(
      lenient,
      { conclusion: 'success', outputs: { 'exit-code': '3', verdict: 'not-measured' } },
      lenient.log,
    );
    t.match(lenient.log, /^::warning::.*exit code 3/m);
    const strict = await runAction(t, 'never-confirms', { ...measured, 'fail-on-not-measured': 'true' });
    t.match(strict, { conclusion: 'failure', outputs: { verdict: 'not-measured' } }, strict.log);
  },
);

t.test('a run that could not begin has no report to keep', { timeout: TIMEOUT_MS }, async (t) => {
  // A queue that ends at once never becomes ready.
  const files = { 'queue.mjs': 'process.exit(1);' };
  const job = await runAction(t, 'correct', { budget: '5s', faults: 'kill' }, files);
  t.match(job, { conclusion: 'success', outputs: { 'exit-code': '3', verdict: 'not-measured' } }, job.log);
});

t.test('inputs are data: no text of them is run, and no path leads to another option', async (t) => {
  const mark = '$(touch injected)`touch injected`"; touch injected #';
  for (const name of ['target', 'budget', 'faults', 'power', 'runtime']) {
    const job = await runAction(t, 'correct', { budget: '5s', [name]: mark });
    t.match(job, { conclusion: 'failure', outputs: { 'exit-code': '2', verdict: 'error' } }, job.log);
    t.notOk(existsSync(join(job.workspace, 'injected')), name);
  }
  // It is a possible name of a file, so the gate runs.
  const report = await runAction(t, 'correct', { budget: '5s', faults: 'kill', report: `${mark}.xml` });
  t.match(report.outputs, { verdict: /^(?:pass|not-measured)$/ }, report.log);
  t.ok(existsSync(join(report.workspace, `${mark}.xml`)), 'the report has this name');
  t.notOk(existsSync(join(report.workspace, 'injected')));
  const option = await runAction(t, 'correct', { target: '--help', budget: '5s' });
  t.match(option.outputs, { 'exit-code': '2' }, option.log);
});

t.test('no script of the action has an expression in it', async (t) => {
  const { runs } = parse(readFileSync(join(ACTION, 'action.yml'), 'utf8')) as { runs: { steps: Step[] } };
  const scripts = runs.steps.flatMap(({ run }) => run ?? []);
  t.ok(scripts.length >= 5);
  for (const script of scripts) t.notMatch(script, /\$\{\{/);
});

t.test('the workflow of this repository gives the action inputs that it has', async (t) => {
  const { inputs } = parse(readFileSync(join(ACTION, 'action.yml'), 'utf8')) as { inputs: object };
  const { jobs } = parse(readFileSync(join(packageRoot(), '.github/workflows/gate.yml'), 'utf8')) as {
    jobs: Record<string, { steps: { uses?: string; with?: object }[] }>;
  };
  const uses = Object.values(jobs).flatMap(({ steps }) =>
    steps.filter((step) => step.uses === './.github/actions/gate'),
  );
  t.ok(uses.length >= 2, `${uses.length} jobs use it`);
  for (const step of uses) for (const name of Object.keys(step.with ?? {})) t.ok(name in inputs, name);
});

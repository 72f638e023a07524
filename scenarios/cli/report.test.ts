import { spawnSync } from 'node:child_process';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import t from 'tap';
import { certified, goodRun } from '../../conformance/fixtures/certified.js';
import { HistoryBuilder } from '../../conformance/fixtures/history-builder.js';
import type { HistoryEvent } from '../../conformance/history/events.js';
import { defineTarget } from '../../conformance/target-file/load.js';
import { writeBundle } from '../bundle/bundle.js';
import { writeRunFacts } from '../bundle/run-facts.js';
import { describeTarget } from '../bundle/target.js';
import { TestWorkspace } from '../fixtures/kit.js';
import { offerReport } from './offer-report.js';

/** Writes the evidence of a run that has lost message 1. Nothing of it can be run. */
function evidence(t: { teardown(remove: () => void): void }) {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  const dir = join(workspace.dir, 'evidence');
  mkdirSync(dir);
  const { events } = new HistoryBuilder().start('kill').submit('1').crash().drain();
  writeHistory(dir, events);
  const target = defineTarget(
    {
      name: 'mine',
      protocol: 'http',
      services: { server: { command: ['touch', '{dir}/was-run', '{data}', '{port}'] } },
      guarantee: { faults: ['kill'], duplicatesPerCrash: 0 },
    },
    workspace.dir,
  );
  const facts = {
    ...{ command: 'gate' as const, target, seed: 1, verdict: 'fail' as const, why: 'PP-1: lost', tookMs: 5 },
    ...{ replay: 'plugpull gate t.json', warnings: [], notTried: [], power: 'blocklog' },
  };
  writeRunFacts(dir, facts);
  const report = (...args: string[]) => workspace.run(['report', ...args]);
  return { workspace, dir, target, report };
}

function writeHistory(dir: string, events: readonly HistoryEvent[]): void {
  writeFileSync(join(dir, 'history.jsonl'), events.map((event) => `${JSON.stringify(event)}\n`).join(''));
}

t.test('the report of evidence is one file beside it, and is replaced by the next one', async (t) => {
  const { dir, report } = evidence(t);
  const file = join(dir, 'report.html');
  for (let time = 0; time < 2; time++) {
    const { code, stderr } = await report(dir);
    t.equal(code, 0, stderr);
    t.match(stderr, `report: ${file}`);
  }
  t.match(readFileSync(file, 'utf8'), /^<!doctype html>[\s\S]*id="plugpull-data"/);
  t.same(
    readdirSync(dir).filter((name) => name.endsWith('.part')),
    [],
  );
});

t.test('a bundle, a result and a packed result give a report, and no command of theirs is run', async (t) => {
  const { workspace, dir, target, report } = evidence(t);
  const bundle = join(workspace.dir, 'bundle.tar.gz');
  await writeBundle(bundle, dir, {
    ...{ target: describeTarget(target), seed: 7, requirements: ['PP-1'], why: 'lost', summary: [] },
    case: {
      ...{ kind: 'gate', runtime: 'process', power: 'blocklog', round: 1 },
      filesystem: { type: 'ext4', mountOptions: '' },
      schedule: { seed: 7, injections: [], disk: 'any', producers: 2, depth: 1 },
    },
  });
  const result = JSON.stringify({
    ...{ target: 'mine', verdict: 'fail', why: 'lost', requirements: [], seed: 1, tookMs: 1 },
    ...{ replay: 'plugpull gate', evidence: null, bundle: null, violations: [] },
  });
  const [plain, packed] = [join(workspace.dir, 'r.json'), join(workspace.dir, 'r.json.gz')];
  writeFileSync(plain, result);
  writeFileSync(packed, gzipSync(result));
  for (const path of [bundle, plain, packed]) {
    const out = join(workspace.dir, 'out', `${path.length}.html`);
    const { code, stderr } = await report(path, '--out', out);
    t.equal(code, 0, stderr);
    t.ok(existsSync(out), path);
  }
  t.notOk(existsSync(join(workspace.dir, 'was-run')));
});

t.test('a certificate gives a report with a run for each level', async (t) => {
  const { report } = evidence(t);
  const { dir, file } = certified({
    process: goodRun({ fault: 'kill' }, { fault: 'kill-recovery' }).events,
  });
  t.teardown(() => rmSync(dirname(dir), { recursive: true, force: true }));
  const out = join(dirname(dir), 'c.html');
  for (const path of [file, dir]) {
    const { code, stderr } = await report(path, '--out', out);
    t.equal(code, 0, stderr);
  }
  t.ok(existsSync(out));
});

t.test('a trace is valid JSON, and the HTML is then written only with --out', async (t) => {
  const { dir, report } = evidence(t);
  const file = join(dir, 'trace.json');
  const { code, stderr, stdout } = await report(dir, '--trace', file, '--json');
  t.equal(code, 0, stderr);
  t.same(JSON.parse(stdout), { trace: file });
  const { traceEvents } = JSON.parse(readFileSync(file, 'utf8')) as { traceEvents: { ph: string }[] };
  t.ok(traceEvents.some(({ ph }) => ph === 'b'));
  t.notOk(existsSync(join(dir, 'report.html')));
  t.equal((await report(dir, '--trace', file)).code, 0, 'a trace of the kit is replaced');
});

t.test('a file that is not a report is kept without --force', async (t) => {
  const { dir, workspace, report } = evidence(t);
  const precious = join(workspace.dir, 'thesis.html');
  writeFileSync(precious, '<!doctype html>my thesis');
  for (const flag of ['--out', '--trace']) {
    const { code, stderr } = await report(dir, flag, precious);
    t.equal(code, 2);
    t.match(stderr, /thesis\.html: expected a report of plugpull, found another file; use --force/);
  }
  t.match(readFileSync(precious, 'utf8'), /my thesis/);
  t.equal((await report(dir, '--out', precious, '--force')).code, 0);
  t.equal((await report(dir, '--out', workspace.dir)).code, 2, 'a directory is no file');
  const pipe = join(workspace.dir, 'pipe');
  t.equal(spawnSync('mkfifo', [pipe]).status, 0);
  t.equal((await report(dir, '--out', pipe, '--force')).code, 2, 'a pipe or a device is never replaced');
  t.ok(lstatSync(pipe).isFIFO());
});

t.test('damaged or foreign input is one line and exit code 2', async (t) => {
  const { dir, workspace, report } = evidence(t);
  const folder = (name: string) => {
    const path = join(workspace.dir, name);
    mkdirSync(path);
    return path;
  };
  const file = (name: string, content: string | Buffer) => {
    writeFileSync(join(workspace.dir, name), content);
    return join(workspace.dir, name);
  };
  const cut = folder('cut');
  writeHistory(cut, [{ kind: 'nonsense' } as unknown as HistoryEvent]);
  const noFacts = folder('no-facts');
  writeHistory(noFacts, new HistoryBuilder().start('kill').events);
  const badFacts = folder('bad-facts');
  writeHistory(badFacts, new HistoryBuilder().start('kill').events);
  writeFileSync(join(badFacts, 'run.json'), '{"format":"plugpull-run","version":99}');
  const linked = folder('linked');
  symlinkSync(join(dir, 'history.jsonl'), join(linked, 'history.jsonl'));
  const linkedFacts = folder('linked-facts');
  writeHistory(linkedFacts, new HistoryBuilder().start('kill').events);
  symlinkSync('/etc/hostname', join(linkedFacts, 'run.json'));
  for (const path of [
    join(workspace.dir, 'missing'),
    '/dev/null',
    folder('empty'),
    ...[cut, noFacts, badFacts, linked, linkedFacts],
    file('x.tar.gz', 'no bundle'),
    file('x.json', '{"target":7}'),
    file('x.json.gz', Buffer.concat([gzipSync('{"a":1}').subarray(0, 12)])),
    file('deep.json', '['.repeat(100_000)),
    file('bomb.json.gz', gzipSync(Buffer.alloc(80 * 2 ** 20, ' '))),
  ]) {
    const { code, stderr } = await report(path, '--out', join(workspace.dir, 'out.html'));
    t.equal(code, 2, `${path}: ${stderr}`);
    t.equal(stderr.trim().split('\n').length, 1, stderr);
  }
  t.notOk(existsSync(join(workspace.dir, 'out.html')));
});

t.test(
  'after a failure the report is written in CI, and elsewhere the command for it is named',
  async (t) => {
    const { dir } = evidence(t);
    const { CI } = process.env;
    t.teardown(() => {
      if (CI === undefined) delete process.env.CI;
      else process.env.CI = CI;
    });
    process.env.CI = 'false';
    await offerReport('fail', dir);
    t.notOk(existsSync(join(dir, 'report.html')));
    process.env.CI = 'true';
    await offerReport('pass', dir);
    t.notOk(existsSync(join(dir, 'report.html')), 'a pass needs no report');
    await offerReport('fail', join(dir, 'missing'));
    await offerReport('fail', dir);
    t.ok(existsSync(join(dir, 'report.html')));
  },
);

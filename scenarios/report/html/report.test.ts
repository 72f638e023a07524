import assert from 'node:assert';
import { gunzipSync } from 'node:zlib';
import fc from 'fast-check';
import t from 'tap';
import { CHECKERS, evaluate } from '../../../conformance/checkers/evaluate.js';
import { EMPTIED_FILE, HistoryBuilder } from '../../../conformance/fixtures/history-builder.js';
import type { HistoryEvent } from '../../../conformance/history/events.js';
import { buildReport } from './build.js';
import { fromDeltas } from './columns.js';
import type { ReportModel } from './model.js';
import type { ReportSource } from './source.js';
import { reportHtml } from './write-html.js';

const GUARANTEE = { faults: ['power-cut' as const], duplicatesPerCrash: 0 };

function sourceOf(events: readonly HistoryEvent[], changed: Partial<ReportSource> = {}): ReportSource {
  const target = { guarantee: GUARANTEE } as Parameters<typeof evaluate>[1];
  const evaluation = evaluate(events, target);
  return {
    command: 'gate',
    target: 'mine',
    protocol: 'http',
    seed: 7,
    kitVersion: '1',
    startedAt: null,
    tookMs: 10,
    path: 'evidence',
    verdict: evaluation.verdict,
    why: evaluation.why,
    requirements: evaluation.findings.map(({ requirement, verdict, why }) => ({
      id: requirement,
      verdict,
      why,
    })),
    unclaimed: evaluation.unclaimed,
    notTried: [{ name: 'clock', why: 'libfaketime is missing', remedy: 'npm run setup' }],
    warnings: [],
    replay: ['plugpull replay bundle.tar.gz'],
    power: 'blocklog',
    runs: [{ name: '', events, evaluation }],
    habits: [],
    crashStates: undefined,
    recording: '',
    ...changed,
  };
}

/** A run in which message 1 is lost at the second power cut, and message 2 comes twice before that. */
function lossyRun(): HistoryEvent[] {
  const cut = { fault: 'power-cut', scope: 'machine' as const };
  return new HistoryBuilder()
    .start('power-cut')
    .append({ kind: 'installed', round: 1 })
    .append({ kind: 'service-started', service: 'server', incarnation: 1 })
    .submit('2')
    .deliver('2')
    .refuse(false, 'busy')
    .deliver('2')
    .consume()
    .submit('1')
    .append({
      kind: 'service-exited',
      service: 'server',
      incarnation: 1,
      code: null,
      signal: 'SIGKILL',
      expected: true,
    })
    .crash({ ...cut, lostFiles: [] })
    .append({ kind: 'service-started', service: 'server', incarnation: 2 })
    .crash({ ...cut, lostFiles: [EMPTIED_FILE] })
    .submit('3', 'rejected')
    .drain().events;
}

/** Reads the data of a report as the browser does. */
function dataOf(text: string): ReportModel {
  const [, data = ''] =
    /<script type="application\/octet-stream" id="plugpull-data">([^<]*)<\/script>/.exec(text) ?? [];
  return JSON.parse(gunzipSync(Buffer.from(data, 'base64')).toString('utf8')) as ReportModel;
}

const PAGE = '<!doctype html><html><body><!--plugpull-data--><p>end</p></body></html>';

t.test('the verdict names the file, the missing sync and the message', async (t) => {
  const { summary, diagnoses } = buildReport(sourceOf(lossyRun()));
  t.equal(summary.verdict, 'fail');
  t.match(summary.sentence, /base-14\.log.*power-cut 2.*1 confirmed message: 1, confirmed/);
  t.match(diagnoses, [{ cause: 'not-synced', file: 'base-14.log', messages: 1, run: 0, injection: 1 }]);
  t.match(summary.basis, {
    confirmed: 2,
    rejected: 1,
    lost: 1,
    injections: 2,
    injectionsHit: 2,
    atRiskTotal: 2,
  });
  t.ok(summary.notMeasured.some(({ what, remedy }) => what === 'clock' && remedy === 'npm run setup'));
  t.ok(
    summary.violations.some(
      ({ message, run, messageIndex }) => message === '1' && run === 0 && messageIndex === 1,
    ),
  );
});

t.test('the matrix assigns a loss to the fault that took the message', async (t) => {
  const { matrix, requirements, faults } = buildReport(sourceOf(lossyRun()));
  const loss = requirements.findIndex(({ id }) => id === 'PP-1');
  t.match(faults[0], { name: 'power-cut', tried: 2, hit: 2, atRisk: 2, backend: 'blocklog' });
  const cell = matrix.find(({ requirement, fault }) => requirement === loss && fault === 0);
  t.match(cell, { hits: 2, violations: 1, verdict: 'fail' });
  t.ok(
    matrix.some(({ verdict }) => verdict === 'not-measured'),
    'clock was not tried',
  );
});

t.test('the matrix assigns a duplicate to no fault that hit after it', async (t) => {
  const { events } = new HistoryBuilder()
    .start('kill', 'pause')
    .submit('1')
    .deliver('1')
    .consume()
    .crash({ fault: 'kill' })
    .deliver('1')
    .consume()
    .crash({ fault: 'pause', scope: 'none' })
    .drain();
  const { matrix, requirements, faults } = buildReport(sourceOf(events));
  const row = requirements.findIndex(({ id }) => id === 'PP-2');
  t.equal(requirements[row]?.verdict, 'fail');
  const violations = (name: string) => {
    const fault = faults.findIndex((one) => one.name === name);
    return matrix.find((cell) => cell.requirement === row && cell.fault === fault)?.violations;
  };
  t.same([violations('kill'), violations('pause') ?? 0], [1, 0]);
});

/** A part of message 1 is delivered after its producer hung up; a kill comes before, and another one after. */
function partAfterHangUp(detail: string): HistoryEvent[] {
  return new HistoryBuilder()
    .start('kill')
    .submitAndConsume('0')
    .crash({ fault: 'kill' })
    .advance(500)
    .submit('1', 'none')
    .append({ kind: 'answered', id: '1', outcome: 'indefinite', detail })
    .advance(500)
    .crash({ fault: 'kill' })
    .append({ kind: 'delivered', sequence: 9, id: '1', sizeBytes: 5, digest: 'part', recipients: [0] })
    .append({ kind: 'consumed', sequence: 9, id: '1', how: 'answered' })
    .drain().events;
}

t.test('the matrix counts a part of a message whose producer hung up at no fault', async (t) => {
  const { matrix, requirements, faults, summary, diagnoses, fixIt } = buildReport(
    sourceOf(partAfterHangUp('the producer hung up on purpose, in-data')),
  );
  const row = requirements.findIndex(({ id }) => id === 'PP-5');
  t.equal(requirements[row]?.verdict, 'fail');
  const cells = matrix.filter((cell) => cell.requirement === row);
  t.same(
    cells.map(({ fault, violations }) => [faults[fault]?.name, violations]),
    [
      ['kill', 0],
      ['clock', 0],
      ['no fault', 1],
    ],
  );
  t.match(summary.sentence, /^the target stored and delivered a part of message 1, whose .*violates PP-5\)$/);
  t.match(diagnoses, [{ cause: 'stored-in-part', example: '1', fix: /only when all of its bytes/ }]);
  t.match(fixIt, /FIX-IT\.md#pp-5$/);
  t.equal(summary.basis.faultsClaimed, 2, 'no fault is no claimed fault: there are kill and clock');
});

t.test('the matrix counts a part of a message at the fault that hit while it was submitted', async (t) => {
  const { events } = new HistoryBuilder()
    .start('kill', 'pause')
    .submit('1', 'none')
    .append({
      kind: 'service-exited',
      service: 'server',
      incarnation: 1,
      code: null,
      signal: 'SIGKILL',
      expected: true,
    })
    .append({ kind: 'answered', id: '1', outcome: 'indefinite', detail: 'connection reset' })
    .advance(300)
    .crash({ fault: 'kill' })
    .advance(300)
    .fault({ fault: 'pause', scope: 'none' })
    .deliver('1', { digest: 'part' })
    .consume()
    .drain();
  const { matrix, requirements, faults } = buildReport(sourceOf(events));
  const row = requirements.findIndex(({ id }) => id === 'PP-5');
  t.equal(requirements[row]?.verdict, 'fail');
  const failed = matrix.filter(({ requirement, violations }) => requirement === row && violations > 0);
  t.same(
    failed.map(({ fault }) => faults[fault]?.name),
    ['kill'],
  );
});

t.test(
  'the cause of a loss names only requirements about loss, and the story is that of its message',
  async (t) => {
    const cut = { fault: 'power-cut', scope: 'machine' as const };
    const files = (file: string, ...messages: string[]) => [{ ...EMPTIED_FILE, file, messages }];
    const { events } = new HistoryBuilder()
      .start('power-cut')
      .append({ kind: 'installed', round: 1 })
      .submit('a')
      .crash({ ...cut, lostFiles: files('other.log', 'a') })
      .submit('b')
      .submit('c')
      .submit('d')
      .deliver('d', { digest: 'changed' })
      .consume()
      .crash({ ...cut, lostFiles: files('base-1.log', 'b', 'c') })
      .drain();
    const { summary, diagnoses, fixIt } = buildReport(sourceOf(events));
    t.match(summary.sentence, /message.* \(violates PP-1, PP-12; PP-4 failed for another reason\)$/);
    t.match(fixIt, /FIX-IT\.md#pp-12$/, 'the link leads to the requirement about the fault of the cause');
    t.equal(diagnoses[0]?.example, 'b');
    t.match(summary.story[0], /message b submitted/);
    t.match(summary.story.join('\n'), /power-cut 2/);
  },
);

t.test('a message that may still come is counted as in the report in text, and not as lost', async (t) => {
  const { events } = new HistoryBuilder()
    .startOver('amqp', 'kill')
    .append({ kind: 'installed', round: 1 })
    .submit('1')
    .deliver('1')
    .crash()
    .drain(true, { allowedMs: 65_000, allowedBy: 'default' });
  const source = sourceOf(events);
  const figures = source.runs[0]?.evaluation?.findings.find(
    ({ requirement }) => requirement === 'PP-1',
  )?.figures;
  t.match(figures, { lost: 0, notDelivered: 1 });
  t.match(buildReport(source).summary.basis, { lost: 0, notDelivered: 1 });
});

t.test(
  'the report counts claimed faults as the report in text, also those that the run left out',
  async (t) => {
    const claimed = ['power-cut', 'kill', 'pause'];
    const { basis } = buildReport(sourceOf(lossyRun(), { claimed })).summary;
    t.match(basis, { faultsClaimed: 3, faultsHit: 1 });
  },
);

t.test('the matrix blames no fault for a loss without a crash', async (t) => {
  const { events } = new HistoryBuilder()
    .start('kill')
    .submit('2')
    .crash({ fault: 'kill' })
    .deliver('2')
    .consume()
    .submit('1')
    .drain();
  const { matrix, requirements, faults } = buildReport(sourceOf(events));
  const row = requirements.findIndex(({ id }) => id === 'PP-1');
  t.equal(requirements[row]?.verdict, 'fail');
  const failed = matrix.filter(({ requirement, violations }) => requirement === row && violations > 0);
  t.same(
    failed.map(({ fault, violations }) => [faults[fault]?.name, violations]),
    [['no fault', 1]],
  );
});

t.test('the story of each message is in its columns', async (t) => {
  const [run] = buildReport(sourceOf(lossyRun())).runs;
  assert(run);
  const { messages, injections, lanes, producers, fileCuts, strings } = run;
  t.same(messages.id, ['2', '1', '3']);
  t.same(messages.outcome, [0, 0, 1]);
  t.same(messages.lostBy, [-1, 1, -1]);
  t.equal((messages.flags[1] ?? 0) & 1, 1, 'message 1 is lost');
  t.equal(messages.deliveries[0], 2);
  t.same([...fromDeltas(messages.later.message ?? [])], [0]);
  t.equal(strings[messages.refused.why[0] ?? -1], 'busy');
  t.equal(injections[1]?.lost, 1);
  t.same(
    lanes.map(({ name, ticks }) => [name, ticks.length, ticks[1]]),
    [['server', 2, -1]],
  );
  t.equal(strings[lanes[0]?.end[0] ?? -1], 'SIGKILL, by the kit');
  t.same(producers, [{ producer: 0, round: 1, confirmed: 2, lost: 1, where: 'suffix' }]);
  t.match(fileCuts, [
    { injection: 1, files: [{ file: 'base-14.log', content: 'not-synced', name: 'synced' }] },
  ]);
});

t.test('an exploration shows the share of failing states by position, the easiest state first', async (t) => {
  const { events } = new HistoryBuilder()
    .start('crash-states')
    .submitAt('a', 3)
    .submitAt('b', 5)
    .explore(4, 0b01, { alike: 8 })
    .explore(6, 0b01)
    .explore(6, 0b11, { alike: 2 })
    .explore(7, 0b00);
  const finding = CHECKERS['PP-13'](events, GUARANTEE);
  const evaluation = { ...finding, findings: [finding], unclaimed: [] };
  const cause = {
    kind: 'directory-not-synced' as const,
    ...{ sentence: 'server renames a to b', fix: 'sync it', file: 'b', service: 'server', message: 'b' },
    ...{ writes: [4], confirmedAt: 5, flushAt: null, files: ['b'], story: ['one'] },
  };
  const broken = { address: '6', position: 6, missingWrites: [5], files: [{ file: 'x', what: 'entry 5' }] };
  const source = sourceOf(events, {
    command: 'explore',
    runs: [{ name: '', events, evaluation }],
    replay: ['plugpull replay b.tar.gz', 'plugpull explore t.json --seed 7'],
    recording: '/evidence dir',
    crashStates: { entries: 9, from: 2, flushes: [3, 8], broken: [broken], cause },
  });
  const requirements = [{ id: 'PP-13', verdict: finding.verdict, why: finding.why }];
  const { exploration, diagnoses, matrix, faults } = buildReport({
    ...{ ...source, verdict: 'fail', requirements },
  });
  t.match(matrix[0], { hits: 14, violations: 2, verdict: 'fail' });
  t.match(faults[0], { name: 'crash-states', tried: 14, hit: 14 });
  t.same([...fromDeltas(exploration?.cuts.position ?? [])], [4, 6, 7]);
  t.same(exploration?.cuts.states, [9, 4, 1]);
  t.same(exploration?.cuts.failed, [0, 1, 1]);
  t.same(exploration?.cuts.atRisk, [1, 2, 2]);
  t.same([...fromDeltas(exploration?.flushes ?? [])], [3, 8]);
  t.match(exploration?.broken, [
    { address: '6', missing: 1, examples: ['b'], missingWrites: [5], replay: 'plugpull replay b.tar.gz' },
    { address: '7', replay: "plugpull explore t.json --seed 7 --recording '/evidence dir'" },
  ]);
  t.same(
    exploration?.broken[0]?.files.map(({ file }) => file),
    ['b', 'x'],
  );
  t.match(exploration?.blamed, { confirmedAt: 5, writes: [4] });
  t.match(diagnoses, [{ cause: 'directory-not-synced', file: 'b', service: 'server' }]);
});

t.test('no text of a target ends the element of the data, and every text is read back', async (t) => {
  let hostile = 0;
  const bad = fc.oneof(
    fc.constant('</script><script>alert(1)</script>'),
    fc.constant('<!--plugpull-data-->'),
    fc.constant('"><img src=x onerror=alert(1)>'),
    fc.constant('\u0000\u2028\u202e]]>'),
    fc.string({ unit: 'binary' }),
  );
  fc.assert(
    fc.property(bad, bad, (name, detail) => {
      hostile += 1;
      const { events } = new HistoryBuilder().start('kill').submit(name).append({
        kind: 'answered',
        id: name,
        outcome: 'confirmed',
        detail,
      });
      const text = reportHtml(buildReport(sourceOf(events, { target: name, why: detail })), PAGE);
      t.equal(
        text.split('<').length,
        PAGE.split('<').length + 2,
        'no markup is added but the element itself',
      );
      const read = dataOf(text);
      t.equal(read.target, name);
      t.equal(read.runs[0]?.messages.id[0], name);
    }),
  );
  t.ok(hostile >= 100);
});

t.test('long answers and ids are cut off', async (t) => {
  const { events } = new HistoryBuilder()
    .start('kill')
    .submit('x'.repeat(10_000))
    .append({
      kind: 'answered',
      id: 'x'.repeat(10_000),
      outcome: 'confirmed',
      detail: 'y'.repeat(1_000_000),
    });
  t.ok(JSON.stringify(buildReport(sourceOf(events))).length < 20_000);
});

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { HistoryBuilder } from '../../../conformance/fixtures/history-builder.js';
import type { HistoryEvent } from '../../../conformance/history/events.js';
import { defineTarget } from '../../../conformance/target-file/load.js';
import { EXPLORATION_FOLDER, type RunFactParts, writeRunFacts } from '../../bundle/run-facts.js';
import { TestWorkspace } from '../../fixtures/kit.js';
import { buildReport } from './build.js';
import { sourceFromDirectory } from './from-directory.js';

const TARGET = defineTarget(
  {
    name: 'mine',
    protocol: 'http',
    services: { server: { command: ['true', '{data}', '{port}'] } },
    guarantee: { faults: ['kill', 'crash-states'], duplicatesPerCrash: 0 },
  },
  '/',
);

function write(dir: string, events: readonly HistoryEvent[], facts: Partial<RunFactParts>): void {
  mkdirSync(dir);
  writeFileSync(join(dir, 'history.jsonl'), events.map((event) => `${JSON.stringify(event)}\n`).join(''));
  writeRunFacts(dir, {
    ...{ command: 'gate', target: TARGET, seed: 1, verdict: 'pass', why: 'all passed', tookMs: 5 },
    ...{ replay: 'plugpull gate t.json', warnings: [], notTried: [], power: 'blocklog' },
    ...facts,
  });
}

/** Writes the evidence of a gate whose rounds passed, and that explored this crash state afterwards. */
function gateThatExplored(
  t: { teardown(remove: () => void): void },
  live: number,
  stated: Partial<RunFactParts>,
  statedOfStates: Partial<RunFactParts> = {},
) {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  const dir = join(workspace.dir, 'evidence');
  const rounds = new HistoryBuilder().start('kill').submit('1').crash().deliver('1').consume().drain();
  write(dir, rounds.events, stated);
  const cause = {
    ...{ kind: 'not-synced' as const, sentence: 'server never syncs log', fix: 'sync it', file: 'log' },
    ...{ service: 'server', message: 'b', writes: [4], confirmedAt: 5, flushAt: null, files: ['log'] },
    story: ['one'],
  };

  const explored = new HistoryBuilder()
    .start('crash-states')
    .submitAt('a', 3)
    .submitAt('b', 5)
    .explore(6, live, { alike: 30 });

  const broken = live === 0b11 ? [] : [{ address: '6', position: 6, missingWrites: [], files: [] }];
  write(join(dir, EXPLORATION_FOLDER), explored.events, {
    command: 'explore',
    ...statedOfStates,
    crashStates: { entries: 9, from: 2, flushes: [3], broken, cause: live === 0b11 ? null : cause },
  });
  writeFileSync(join(dir, EXPLORATION_FOLDER, 'bundle.tar.gz'), '');
  return { dir, report: buildReport(sourceFromDirectory(dir, dir)) };
}

t.test('the report of a gate shows what its exploration has broken', async (t) => {
  const { report } = gateThatExplored(t, 0b01, { verdict: 'fail', why: 'PP-13: one is lost' });
  const { summary, requirements, matrix, exploration, runs, diagnoses, faults } = report;
  t.match(summary.sentence, /^server never syncs log \(violates PP-13\)/);
  t.match(summary.replay[0], /replay .*exploration\/bundle\.tar\.gz/);
  const row = requirements.findIndex(({ id }) => id === 'PP-13');
  t.equal(requirements[row]?.verdict, 'fail');
  const fault = faults.findIndex(({ name }) => name === 'crash-states');
  t.match(
    matrix.find((cell) => cell.requirement === row && cell.fault === fault),
    { verdict: 'fail', hits: 31 },
  );
  t.match(diagnoses, [{ cause: 'not-synced', file: 'log' }]);
  t.match(exploration, { run: 1, broken: [{ address: '6', examples: ['b'] }] });
  t.same(
    runs.map(({ name }) => name),
    ['rounds', 'crash states'],
  );
  t.match(summary.basis, { confirmed: 1, lost: 0, statesJudged: 31 }, 'counts of the rounds alone');
});

t.test('facts that state a pass do not hide what an exploration has broken', async (t) => {
  const { report } = gateThatExplored(t, 0b01, {});
  t.match(report.summary, { verdict: 'fail', sentence: /server never syncs log/ });
});

t.test('an exploration that passed is a measured requirement', async (t) => {
  const { report } = gateThatExplored(t, 0b11, {});
  t.equal(report.summary.verdict, 'pass');
  t.not(report.requirements.find(({ id }) => id === 'PP-13')?.why, undefined);
  t.equal(report.exploration?.cuts.failed[0], 0);
  t.notOk(report.summary.notMeasured.some(({ what }) => what === 'crash-states'));
});

t.test('an exploration of too few states is no pass, in the report of a gate and in its own', async (t) => {
  const why = 'PP-13: too few states for a pass';
  const { dir, report } = gateThatExplored(t, 0b11, {}, { verdict: 'not-measured', why });
  const own = join(dir, EXPLORATION_FOLDER);
  for (const { requirements } of [report, buildReport(sourceFromDirectory(own, own))])
    t.match(
      requirements.find(({ id }) => id === 'PP-13'),
      { verdict: 'not-measured', why: 'too few states for a pass' },
    );
});

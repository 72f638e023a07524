import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import t from 'tap';
import { KitError } from '../../conformance/errors.js';
import { TestWorkspace } from '../fixtures/kit.js';
import type { PlantedBug } from './definition.js';
import { mapConcurrently } from './gate-original.js';
import { hunt, overallOutcome, quickestDetection } from './hunt.js';
import { type HuntOptions, inconclusiveResult, judgeHunt, type Mode, type ModeResult } from './mode.js';
import {
  mergeHunts,
  mergeOriginalRuns,
  type OriginalRuns,
  quickestFirst,
  type Results,
  readResults,
  totalsOf,
  writeResults,
} from './results.js';
import { resultsTable } from './results-table.js';
import { parseJsonOutput, runProgram } from './run-program.js';

const BUG: PlantedBug = {
  id: 'other-message',
  description: 'an error has another text',
  implementation: 'synchronous',
  file: 'common/platform/errors.ts',
  find: 'invariant broken: ',
  replace: 'planted: ',
  requirement: 'PP-1',
  alsoAccepted: ['PP-9'],
  faults: ['kill'],
  shownBy: 'process',
};

const OPTIONS: HuntOptions = {
  seed: 7,
  budgetMs: 1000,
  signal: new AbortController().signal,
  env: {},
  progress: () => {},
};

const facts = { runs: 3, tookMs: 1234, seed: 7, why: 'all passed' };
const finds: Mode = async ({ bug }) => judgeHunt(bug, ['PP-9', 'PP-1'], facts);
const findsNothing: Mode = async ({ bug }) => judgeHunt(bug, [], facts);
const breaks: Mode = async () => {
  throw new KitError('kit-failed', 'disk full');
};

function useStateDirectory(t: { teardown(end: () => void): void }): TestWorkspace {
  const workspace = new TestWorkspace();
  const before = process.env.PLUGPULL_STATE;
  process.env.PLUGPULL_STATE = workspace.state;
  t.teardown(() => {
    if (before === undefined) delete process.env.PLUGPULL_STATE;
    else process.env.PLUGPULL_STATE = before;
    workspace.remove();
  });
  return workspace;
}

t.test('a bug is found when a requirement that names it failed', async (t) => {
  t.match(judgeHunt(BUG, ['PP-9', 'PP-1'], facts), {
    outcome: 'yes',
    requirement: 'PP-1',
    seconds: 1.2,
    why: null,
  });
  t.match(judgeHunt(BUG, ['PP-9'], facts), { outcome: 'yes', requirement: 'PP-9' });
  t.match(judgeHunt(BUG, ['PP-4'], facts), { outcome: 'other', requirement: null, red: ['PP-4'] });
  t.match(judgeHunt(BUG, [], facts), { outcome: 'no', requirement: null, why: 'all passed' });
});

t.test('a hunt ends with the first mode that finds the bug, or on request tries all modes', async (t) => {
  useStateDirectory(t);
  const known = { gate: findsNothing, simulate: finds, explore: findsNothing, flakey: findsNothing };
  const modes = ['gate', 'simulate', 'explore'] as const;
  const first = await hunt(BUG, { modes, everyMode: false }, OPTIONS, known);
  t.same(Object.keys(first.modes), ['gate', 'simulate']);
  t.equal(overallOutcome(first), 'yes');
  const all = await hunt(BUG, { modes, everyMode: true }, OPTIONS, known);
  t.same(Object.keys(all.modes), modes);
  t.equal(quickestDetection(all), all.modes.simulate);
});

t.test('a failure of the kit is reported as a result, and the other modes are still tried', async (t) => {
  useStateDirectory(t);
  const known = { gate: breaks, simulate: findsNothing, explore: finds, flakey: finds };
  const done = await hunt(BUG, { modes: ['gate', 'simulate'], everyMode: false }, OPTIONS, known);
  t.match(done.modes.gate, { outcome: 'error', why: 'disk full' });
  t.match(done.modes.simulate, { outcome: 'no' });
  t.equal(overallOutcome(done), 'error');
  const unplanted = await hunt(
    { ...BUG, find: 'no such text' },
    { modes: ['gate'], everyMode: false },
    OPTIONS,
  );
  t.match(unplanted.modes.gate, { outcome: 'error', why: /exactly once/ });
});

t.test('each mode gets the planted copy, which is removed afterwards', async (t) => {
  useStateDirectory(t);
  let text = '';
  let program = '';
  const inspects: Mode = async (copy) => {
    program = copy.program;
    text = readFileSync(join(dirname(program), '../common/platform/errors.js'), 'utf8');
    return inconclusiveResult(7, 'only inspected');
  };
  await hunt(BUG, { modes: ['gate'], everyMode: false }, OPTIONS, {
    gate: inspects,
    simulate: inspects,
    explore: inspects,
    flakey: inspects,
  });
  t.match(text, 'planted: ');
  t.throws(() => readFileSync(program));
});

t.test('mapConcurrently keeps the limit and the order, and starts nothing after an abort', async (t) => {
  const controller = new AbortController();
  let running = 0;
  let maxRunning = 0;
  const work = async (item: number) => {
    maxRunning = Math.max(maxRunning, ++running);
    await new Promise((resolve) => setImmediate(resolve));
    running--;
    if (item === 4) controller.abort();
    return item * 10;
  };
  t.same(await mapConcurrently([1, 2, 3], 2, new AbortController().signal, work), [10, 20, 30]);
  t.equal(maxRunning, 2);
  t.same(await mapConcurrently([4, 5, 6], 1, controller.signal, work), [40]);
});

t.test('the output of a program is parsed, and a program that hangs or is aborted is stopped', async (t) => {
  const program = (code: string) => ['-e', code];
  const ended = await runProgram(program('console.error("a\\nb"); console.log(JSON.stringify({ x: 1 }))'), {
    ...OPTIONS,
    timeoutMs: 20_000,
  });
  t.match(ended, { code: 0, lastStderrLines: ['a', 'b'] });
  t.same(parseJsonOutput(ended), { x: 1 });
  t.equal(parseJsonOutput({ ...ended, stdout: '' }), undefined);
  t.throws(() => parseJsonOutput({ ...ended, stdout: 'nonsense' }), { code: 'kit-failed' });
  const hangs = program('setInterval(() => {}, 1000)');
  await t.rejects(runProgram(hangs, { ...OPTIONS, timeoutMs: 300 }), { code: 'kit-failed' });
  const controller = new AbortController();
  const running = runProgram(hangs, { ...OPTIONS, signal: controller.signal, timeoutMs: 60_000 });
  controller.abort();
  t.equal((await running).signal, 'SIGTERM');
});

const result = (more: Partial<ModeResult>): ModeResult => ({ ...inconclusiveResult(7, 'x'), ...more });
const NONE: Results = readResults('/no/such/file');
const A = { id: 'a', implementation: 'synchronous' };

t.test('results are saved by mode, and the summary is that of the quickest detection', async (t) => {
  const gate = result({ outcome: 'yes', requirement: 'PP-1', runs: 2, seconds: 9 });
  const simulate = result({ outcome: 'yes', requirement: 'PP-2', runs: 800, seconds: 1 });
  const once = mergeHunts(NONE, [{ ...A, expected: 'PP-1', modes: { gate } }], [A, { ...A, id: 'b' }]);
  t.match(once.bugs, [{ id: 'a', found: true, requirement: 'PP-1', runs: 2, seconds: 9 }]);
  const twice = mergeHunts(once, [{ ...A, expected: 'PP-1', modes: { simulate } }], [A, { ...A, id: 'b' }]);
  t.match(twice.bugs, [{ id: 'a', found: true, requirement: 'PP-2', runs: 800, seconds: 1 }]);
  t.same(Object.keys(twice.bugs[0]?.modes ?? {}), ['gate', 'simulate']);
  t.same(
    mergeHunts(twice, [], [{ ...A, id: 'b' }]).bugs,
    [],
    'results of a bug that no longer exists are removed',
  );
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  const file = join(workspace.dir, 'results.json');
  writeResults(twice, file);
  t.same(readResults(file), twice);
});

t.test('results of another format are refused in one line, with exit code 2', async (t) => {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  const file = join(workspace.dir, 'results.json');
  const { format: _, ...firstFormat } = NONE;
  for (const [text, reported] of [
    [firstFormat, 'none'],
    [null, 'none'],
    [{ ...NONE, format: 2 }, '2'],
    [{ ...NONE, format: 9 }, '9'],
  ] as const) {
    writeFileSync(file, JSON.stringify(text));
    t.throws(() => readResults(file), {
      exitCode: 2,
      message: new RegExp(`^\\S+results\\.json: format: expected 3, found ${reported}; remove it and run: `),
    });
  }
  writeFileSync(file, JSON.stringify(NONE).slice(0, -3));
  t.throws(() => readResults(file), {
    exitCode: 2,
    message: /^\S+results\.json: expected JSON: .*; remove it and run: /,
  });
});

t.test('the mode that found a bug before, and was the quickest, is tried first', async (t) => {
  const gate = result({ outcome: 'yes', requirement: 'PP-1', seconds: 9 });
  const explore = result({ outcome: 'yes', requirement: 'PP-13', seconds: 2 });
  const [known] = mergeHunts(NONE, [{ ...A, expected: 'PP-1', modes: { gate, explore } }], [A]).bugs;
  const modes = ['simulate', 'gate', 'explore'] as const;
  t.same(quickestFirst(modes, known), ['explore', 'gate', 'simulate']);
  t.same(quickestFirst(modes, undefined), modes);
});

t.test('gates on the original are totalled, with one batch for each version of the sources', async (t) => {
  const piece: OriginalRuns = {
    implementation: 'synchronous',
    referenceDigest: 'aaa',
    runs: 10,
    falseAlarms: 0,
    notMeasured: 1,
    errors: 0,
    budgetSeconds: 20,
    seconds: 200,
  };
  const once = mergeOriginalRuns(NONE, piece);
  const twice = mergeOriginalRuns(once, { ...piece, falseAlarms: 1 });
  t.match(twice.original, [{ runs: 20, falseAlarms: 1, notMeasured: 2, seconds: 400 }]);
  t.equal(twice.original.length, 1);
  const other = mergeOriginalRuns(twice, { ...piece, referenceDigest: 'bbb' });
  t.match(totalsOf(other.original), { runs: 30, falseAlarms: 1 });
  t.equal(other.original.length, 2);
  const second = mergeOriginalRuns(other, { ...piece, implementation: 'checkpointed' });
  t.match(second.original.at(-1), { implementation: 'checkpointed', runs: 10 }, 'of another implementation');
});

t.test('the table has a row per hunted bug, and a dash for a mode that measured nothing', async (t) => {
  const modes = { gate: result({ outcome: 'yes', requirement: 'PP-1', seconds: 9 }), explore: result({}) };
  const saved = mergeHunts(NONE, [{ ...BUG, expected: 'PP-1', modes }], [BUG]);
  const text = resultsTable(saved, [BUG, { ...BUG, id: 'unseen' }]);
  t.match(text, '| `other-message` | `kill` | PP-1, 9 s | – | – |');
  t.notMatch(text, 'unseen', 'a bug that was not hunted has no row');
  t.match(text, '1 of 1 bugs were found');
});

t.test('the table has a part for each implementation with results', async (t) => {
  const modes = { gate: result({ outcome: 'yes', requirement: 'PP-1', seconds: 9 }) };
  const second = { ...BUG, id: 'second', implementation: 'checkpointed' };
  const hunts = [BUG, second].map((bug) => ({ ...bug, expected: 'PP-1', modes }));
  const saved = mergeHunts(NONE, hunts, [BUG, second]);
  const original: OriginalRuns = {
    implementation: 'checkpointed',
    referenceDigest: 'aaa',
    runs: 10,
    falseAlarms: 0,
    notMeasured: 1,
    errors: 0,
    budgetSeconds: 20,
    seconds: 200,
  };
  const text = resultsTable({ ...saved, original: [original] }, [BUG, second]);
  const [first = '', last = ''] = text.split('Bugs in `checkpointed`:');
  t.match(first, /^Bugs in `synchronous`:\n\n\| bug /);
  t.match(first, '| `other-message` |');
  t.notMatch(first, '| `second` |');
  t.match(first, '1 of 1 bugs were found. Of 0 gates');
  t.match(last, '| `second` |');
  t.match(last, '1 of 1 bugs were found. Of 10 gates');
});

import t from 'tap';
import { kitVersion } from '../host/version.js';
import { describeRecorded, describeResult, describeStart } from './describe-replay.js';
import type { ReplayResult } from './replay.js';

const RESULT: ReplayResult = {
  bundle: 'bundle.tar.gz',
  target: 'mine',
  kind: 'gate',
  requirements: ['PP-1'],
  verdict: 'fail',
  why: 'PP-1 failed again in 1 of 5 runs',
  meaning: null,
  runs: 5,
  reproduced: 1,
  reproducer: '2 producers × 2; kill after 3',
  story: ['message 1-0-0 submitted'],
  judged: 'run',
  recordAnew: null,
  shrunkBundle: null,
};

t.test('the recorded failure has a heading, and stands before what the replay does', async (t) => {
  const target: Parameters<typeof describeRecorded>[0]['target'] = {
    definition: { name: 'mine' },
  } as never;
  const parts = { why: 'PP-1: lost', summary: ['gone'], kitVersion: kitVersion(), omittedFiles: [] };
  t.same(describeRecorded({ target, ...parts }), ['recorded:', 'mine: PP-1: lost', 'gone']);
  const gate = { case: { kind: 'gate' } } as Parameters<typeof describeStart>[0];
  t.same(describeStart(gate, 5), ['', 'replay: the recorded schedule runs again, at most 5 times']);
  t.same(describeStart(gate, 1).at(-1), 'replay: the recorded schedule runs again, once');
  const state = { case: { kind: 'crash-state' } } as Parameters<typeof describeStart>[0];
  t.match(describeStart(state, 5).at(-1), /^replay: the target recovers from the recorded crash state$/);
});

t.test('a failure that came again is told with its schedule, its story and its remedy', async (t) => {
  const lines = describeResult(RESULT);
  t.same(lines.slice(0, 4), [
    '',
    'failed again:',
    'schedule: 2 producers × 2; kill after 3',
    'message 1-0-0 submitted',
  ]);
  t.match(lines.at(-1), /^Fix it: .*#pp-1$/);
});

t.test('after passing runs only the result is told, and what it means', async (t) => {
  const passed = {
    verdict: 'pass',
    why: 'mine passed 5 of 5 runs',
    meaning: 'it is rare',
    reproduced: 0,
  } as const;
  t.same(describeResult({ ...RESULT, ...passed, story: ['of the bundle'] }), [
    '',
    'pass: mine passed 5 of 5 runs',
    'this means: it is rare',
  ]);
});

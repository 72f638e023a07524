import t from 'tap';
import type { GateResult } from '../gate/result.js';
import { visibleLine } from '../host/visible.js';
import { gateReport } from './gate-report.js';
import { styleFor } from './style.js';
import { table } from './table.js';

const RESULT: GateResult = {
  target: 'my-queue',
  verdict: 'fail',
  why: 'PP-1: 1 of 10 confirmed messages were lost',
  requirements: [
    { id: 'PP-1', verdict: 'fail', why: '1 of 10 confirmed messages were lost' },
    { id: 'PP-2', verdict: 'pass', why: '0 duplicates among 9 consumed messages' },
  ],
  unclaimed: [],
  setup: { runtime: 'process', power: 'blocklog' },
  faults: [
    { name: 'kill', tried: 3, hit: 2 },
    { name: 'clock', tried: 0, hit: 0, why: 'libfaketime is not installed', remedy: 'install it' },
  ],
  claimedHits: { claimed: 2, hit: 1, neverHit: [] },
  crashStates: null,
  warnings: [],
  rounds: 1,
  submitted: 12,
  confirmed: 10,
  rejected: 1,
  indefinite: 1,
  delivered: 9,
  lost: 1,
  notDelivered: 0,
  duplicates: 0,
  redeliveries: 2,
  corrupted: 0,
  crashes: 2,
  worstRecoveryMs: 512,
  tookMs: 12_345,
  time: {
    budgetMs: 10_000,
    tookMs: 12_345,
    phasesMs: { 'set-up': 345, faults: 9000, drain: 3000 },
    overrunMs: { drain: 2345 },
  },
  seed: 7,
  replay: 'plugpull gate my-queue.json --seed 7',
  evidence: '/runs/1',
  bundle: '/runs/1/bundle.tar.gz',
  violations: [{ requirement: 'PP-1', id: '1-0-3', what: 'confirmed and never delivered' }],
  story: [{ kind: 'answered', atMs: 1234, id: '1-0-3', outcome: 'confirmed', detail: '250 Ok' }],
  losses: ['power-cut 2 took 1 message:', '  base-14.log: 0 bytes, was 23512'],
  causes: ['server writes base-14.log and never syncs it'],
};
const plain = styleFor({ isTTY: false });

t.test('the report shows the figures, the violations, and the command that runs it again', async (t) => {
  const text = gateReport(RESULT, plain).join('\n');
  for (const part of [
    /my-queue.*1 rounds.*12 s.*seed 7/,
    /What the crashes took\n {2}power-cut 2 took 1 message:\n {4}base-14.log: 0 bytes, was 23512/,
    /confirmed +10/,
    /worst recovery 0\.51 s/,
    /kill +tried 3 +hit 2/,
    /faults 9\.0 s, drain 3\.0 s, set-up 0\.3 s/,
    /2\.3 s more than the budget of 10\.0 s: after its end came drain 2\.3 s, which is never cut short/,
    /clock +not measured.*libfaketime.*install it/,
    /fail +PP-1 +no confirmed message is lost +1 of 10/,
    /PP-1 message 1-0-3: confirmed and never delivered/,
    /1\.234 s +answered.*outcome=confirmed detail=250 Ok/,
    /evidence: \/runs\/1/,
    /run it again: .* replay \/runs\/1\/bundle\.tar\.gz\nor: plugpull gate my-queue\.json --seed 7/,
  ]) {
    t.match(text, part);
  }
});

t.test('the report of a pass has no violations and no command that runs it again', async (t) => {
  const none = { violations: [], story: [], evidence: null, bundle: null };
  const passed: GateResult = { ...RESULT, verdict: 'pass', ...none };
  const text = gateReport(passed, plain).join('\n');
  t.notMatch(text, /run it again|evidence|Violations|story/);
});

t.test('the last line of every report says how many of the claimed faults hit', async (t) => {
  const lastLine = (result: GateResult) => gateReport(result, plain).at(-1);
  t.equal(lastLine(RESULT), '1 of 2 claimed faults hit');
  const neverHit = [{ name: 'tear', why: '0 hits in 2 injections: nothing was unsynced' }];
  t.equal(
    lastLine({ ...RESULT, verdict: 'not-measured', claimedHits: { claimed: 2, hit: 1, neverHit } }),
    '1 of 2 claimed faults hit; named with --faults and never hit: tear',
  );
});

t.test('the verdict names each claimed requirement that was not measured', async (t) => {
  const verdictOf = (verdict: GateResult['verdict'], why: string) => {
    const requirements = [
      ...RESULT.requirements,
      ...['PP-13', 'PP-14', 'PP-16'].map((id) => ({ id, verdict: 'not-measured' as const, why: 'no hit' })),
    ] as GateResult['requirements'];
    return gateReport({ ...RESULT, verdict, why, requirements }, plain).find((line) =>
      line.startsWith(`${verdict}: `),
    );
  };
  t.equal(
    verdictOf('not-measured', 'PP-14: no sync failed'),
    'not-measured: PP-14: no sync failed; also not measured: PP-13, PP-16',
  );
  t.equal(
    verdictOf('pass', '1 of 4 claimed requirements measured, all passed'),
    'pass: 1 of 4 claimed requirements measured, all passed; not measured: PP-13, PP-14, PP-16',
  );
  t.equal(verdictOf('fail', 'PP-1: lost'), 'fail: PP-1: lost');
});

t.test('a warning stands before the verdict', async (t) => {
  const warnings = [
    'my-queue writes /x/queue.db outside {data}: no fault of the disk reaches what is stored there',
  ];
  t.match(
    gateReport({ ...RESULT, warnings }, plain).join('\n'),
    /^warning: my-queue writes \/x\/queue\.db outside .*\n\nfail: PP-1/m,
  );
});

t.test('a fault that only missed is reported with the reason of its last miss', async (t) => {
  const faults = [{ name: 'tear', tried: 2, hit: 0, missed: 'nothing was unsynced' }];
  t.match(
    gateReport({ ...RESULT, faults }, plain).join('\n'),
    /tear +tried 2 +hit 0 +last miss: nothing was unsynced/,
  );
});

t.test('colours are used on a terminal only, and not when NO_COLOR is set', async (t) => {
  const terminal = { isTTY: true };
  t.equal(visibleLine(styleFor(terminal, {}).bad('x')), '\u001b[31mx\u001b[0m');
  for (const style of [
    styleFor(terminal, { NO_COLOR: '1' }),
    styleFor(terminal, { TERM: 'dumb' }),
    styleFor({ isTTY: false }, {}),
    styleFor({}, {}),
  ]) {
    t.equal(
      style.bad('x') + style.good('x') + style.warn('x') + style.strong('x') + style.faint('x'),
      'xxxxx',
    );
  }
});

t.test('each column of a table is as wide as its longest cell', async (t) => {
  t.same(table([['a', 'bbb', 'c'], ['aa', '', 'c'], ['aaa']]), ['a    bbb  c', 'aa        c', 'aaa']);
  t.same(table([]), []);
});

t.test('a report says which runtimes and which power backend a profile has chosen', async (t) => {
  const setup = { profile: 'containers', runtime: 'docker', power: 'flakey', powerRuntime: 'vm' } as const;
  const cut = { name: 'power-cut', tried: 2, hit: 1, powerBackend: 'flakey' };
  const style = styleFor({ isTTY: false });
  const lines = gateReport({ ...RESULT, setup, faults: [cut] }, style);
  t.equal(lines[2], 'profile containers: runtime docker; power cuts by flakey, runtime vm');
  t.equal(gateReport({ ...RESULT, setup }, style)[2], 'profile containers: runtime docker');
  t.equal(gateReport(RESULT, style)[2], '');
});

t.test('the title of a story names the message of its events', async (t) => {
  const story: GateResult['story'] = [
    { kind: 'answered', atMs: 1, id: '2-0-9', outcome: 'confirmed', detail: '250 Ok' },
  ];
  t.match(gateReport({ ...RESULT, story }, plain).join('\n'), /The story of message 2-0-9\n/);
});

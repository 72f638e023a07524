import t from 'tap';
import { AtRiskMessages } from '../../../conformance/checkers/crash-states.js';
import type { HistoryEvent } from '../../../conformance/history/events.js';
import type { Inspection } from '../inspectors/inspection.js';
import { parseClusterState } from './address.js';
import type { ChosenState } from './choose-states.js';
import { ClusterRun } from './cluster-run.js';

/** Two messages: the first is confirmed by instant 1, the second by instant 3. */
const HISTORY = [
  { kind: 'submitted', id: '1-0-0' },
  { kind: 'submitted', id: '1-0-1' },
  { kind: 'log-position', id: '1-0-0', what: 'confirmed', entries: 1 },
  { kind: 'log-position', id: '1-0-1', what: 'confirmed', entries: 3 },
] as unknown as HistoryEvent[];

/** Makes a run in which two disks of a node are equal if their cuts have the same number of hundreds. */
function makeRun() {
  const recorded: Record<string, unknown>[] = [];
  const print = { of: ({ prefix }: { prefix: number }) => Math.floor(prefix / 100) };
  const run = new ClusterRun({
    atRisk: new AtRiskMessages(HISTORY),
    recorder: {
      record(event) {
        recorded.push({ ...event });
        return { ...event, atMs: 0 };
      },
    },
    fingerprints: new Map([
      ['a', print],
      ['b', print],
    ]),
  });
  return { run, recorded };
}

const chosen = (address: string): ChosenState => ({ family: 'all-lost', state: parseClusterState(address) });
const held = (...bits: number[]): Inspection => ({
  recovered: true,
  heldBits: Buffer.from([bits.reduce((sum, bit) => sum + (1 << bit), 0)]).toString('base64'),
  wrongCount: 0,
  detail: '',
});

t.test('equal disks of all nodes are inspected once, if they hold what is at risk', async (t) => {
  const { run, recorded } = makeRun();
  const first = chosen('1/a:100|b:100');
  t.ok(run.needsInspection(first));
  run.noteOutcome(first, held(0));
  t.notOk(run.needsInspection(chosen('2/a:150|b:120')), 'it is judged by the equal disks');
  t.notOk(run.needsInspection(chosen('2/a:151|b:121')), 'it is the same once more');
  t.ok(run.needsInspection(chosen('2/a:150|b:200')), 'one disk differs');
  t.match(run, { states: 2, inspected: 1, broken: [], statesAtRisk: 2 });
  t.match(recorded, [
    { state: '1/a:100|b:100', prefix: 1, entriesBegun: 1 },
    { state: '2/a:150|b:120', prefix: 2 },
  ]);
});

t.test('equal disks are inspected again when more messages are at risk', async (t) => {
  const { run } = makeRun();
  const first = chosen('1/a:100|b:100');
  run.noteOutcome(first, held(0));
  const later = chosen('3/a:101|b:100');
  t.ok(run.needsInspection(later), 'the consumer may have stopped before the second message came');
  run.noteOutcome(later, held(0));
  t.match(run.broken, [{ address: '3/a:101|b:100', missing: ['1-0-1'], recoveryFailure: '' }]);
});

t.test('the disk of a machine that stays off makes no difference', async (t) => {
  const { run } = makeRun();
  run.noteOutcome(chosen('1/-a:100|b:100'), held(0));
  t.notOk(run.needsInspection(chosen('2/-a:900|b:100')));
  t.ok(run.needsInspection(chosen('2/a:900|b:100')));
});

t.test('a state that shows nothing about the target is counted and not judged', async (t) => {
  const { run, recorded } = makeRun();
  run.noteOutcome(chosen('1/a:100|b:100'), {
    ...held(),
    recovered: false,
    unmountable: true,
    detail: 'torn',
  });
  run.noteOutcome(chosen('2/a:200|b:100'), { hung: false });
  t.match(run, {
    states: 0,
    unjudged: [{ state: '1/a:100|b:100', why: 'torn' }],
    timedOut: ['2/a:200|b:100'],
  });
  t.same(recorded, []);
});

t.test('a cluster that does not recover is broken', async (t) => {
  const { run } = makeRun();
  run.noteOutcome(chosen('1/a:100|b:100'), {
    ...held(),
    recovered: false,
    heldBits: '',
    detail: 'no leader',
  });
  t.match(run.broken, [{ recoveryFailure: 'no leader', missing: ['1-0-0'] }]);
});

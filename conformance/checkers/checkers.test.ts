import t from 'tap';
import { CASES, type Case, GUARANTEE } from '../fixtures/cases.js';
import { HistoryBuilder } from '../fixtures/history-builder.js';
import type { HistoryEvent } from '../history/events.js';
import { REQUIREMENT_IDS, type RequirementId } from '../requirements/requirements.js';
import { CHECKERS, type Checker } from './evaluate.js';
import { MAX_REPORTED_VIOLATIONS } from './finding.js';
import type { Verdict } from './verdict.js';

const VERDICTS: readonly Verdict[] = ['pass', 'fail', 'not-measured'];
const casesOf = (id: RequirementId) => CASES.filter(({ requirement }) => requirement === id);
const run = (checker: Checker, { history, guarantee }: Case) =>
  checker(history.events, { ...GUARANTEE, ...guarantee });

/** Returns the names of the cases in which a checker has the wrong verdict. */
function wrongOn(id: RequirementId, checker: Checker): string[] {
  return casesOf(id)
    .filter((each) => run(checker, each).verdict !== each.expected)
    .map(({ name }) => name);
}

for (const id of REQUIREMENT_IDS) {
  t.test(`${id}: the checker has the expected verdict for each history written by hand`, async (t) => {
    for (const each of casesOf(id)) {
      const found = run(CHECKERS[id], each);
      t.equal(found.verdict, each.expected, each.name);
      t.equal(found.requirement, id);
      if (each.why !== undefined) t.equal(found.why, each.why, each.name);
      t.ok(found.why.length > 0 && !found.why.includes('\n'), 'the reason is one line');
      t.equal(found.violations.length > 0, each.expected === 'fail', 'a failure lists its violations');
      t.match(found.figures, each.figures ?? {});
    }
    t.same([...new Set(casesOf(id).map(({ expected }) => expected))].sort(), [...VERDICTS].sort());
  });

  t.test(`${id}: the cases detect a checker with a constant verdict`, async (t) => {
    for (const verdict of VERDICTS) {
      const sabotaged: Checker = (history, guarantee) => ({ ...CHECKERS[id](history, guarantee), verdict });
      t.not(wrongOn(id, sabotaged).length, 0, `always ${verdict}`);
    }
  });
}

const ACROSS: HistoryEvent['kind'][] = [
  'submitted',
  'answered',
  'delivered',
  'consumed',
  'refused',
  'fault',
  'at-risk',
  'recovery-failed',
];

/** Kinds of event that each checker must read. */
const READS: Record<RequirementId, HistoryEvent['kind'][]> = {
  'PP-1': [
    'submitted',
    'answered',
    'delivered',
    'consumed',
    'refused',
    'fault',
    'recovered',
    'recovery-failed',
    'drained',
  ],
  'PP-2': ['delivered', 'consumed', 'settled', 'fault', 'service-exited'],
  'PP-3': ['answered', 'delivered'],
  'PP-4': ['submitted', 'answered', 'delivered', 'fault'],
  'PP-5': ['submitted', 'answered', 'delivered'],
  'PP-6': ['submitted', 'delivered'],
  'PP-7': ['submitted', 'answered', 'delivered', 'consumed', 'fault', 'inspected'],
  'PP-8': ['answered', 'fault', 'healed'],
  'PP-9': ['recovered', 'inspected'],
  'PP-10': ['recovered', 'recovery-failed'],
  'PP-11': ['recovered', 'recovery-failed'],
  'PP-12': [
    'submitted',
    'answered',
    'delivered',
    'consumed',
    'refused',
    'fault',
    'at-risk',
    'recovery-failed',
  ],
  'PP-13': ['submitted', 'log-position', 'state-explored'],
  'PP-14': [
    'submitted',
    'answered',
    'delivered',
    'consumed',
    'refused',
    'fault',
    'at-risk',
    'recovery-failed',
    'drained',
  ],
  'PP-15': ACROSS,
  'PP-16': ACROSS,
  'PP-17': ACROSS,
  'PP-18': ACROSS,
  'PP-19': ACROSS,
  'PP-20': ['installed', 'submitted', 'answered', 'delivered', 'fault'],
  'PP-21': ['installed', 'answered', 'delivered', 'consumed', 'fault', 'drained'],
  'PP-22': ['answered', 'delivered', 'consumed', 'fault', 'drained'],
  'PP-23': [
    'installed',
    'submitted',
    'answered',
    'delivered',
    'consumed',
    'fault',
    'cluster-state',
    'inspected',
    'drained',
  ],
  'PP-24': ['installed', 'submitted', 'answered', 'cluster-state', 'recovered', 'service-exited', 'drained'],
};

t.test('the cases detect a checker that ignores a kind of event that it must read', async (t) => {
  for (const id of REQUIREMENT_IDS) {
    for (const kind of READS[id]) {
      const sabotaged: Checker = (history, guarantee) =>
        CHECKERS[id](
          history.filter((event) => event.kind !== kind),
          guarantee,
        );
      t.not(wrongOn(id, sabotaged).length, 0, `${id} blind to ${kind}`);
    }
  }
});

type Change = (event: HistoryEvent) => HistoryEvent;
const onKind =
  <K extends HistoryEvent['kind']>(
    kind: K,
    change: (event: Extract<HistoryEvent, { kind: K }>) => HistoryEvent,
  ): Change =>
  (event) =>
    event.kind === kind ? change(event as Extract<HistoryEvent, { kind: K }>) : event;

/** Changes to a history that model a checker which misreads one fact. */
const MISREADINGS: [RequirementId, string, Change][] = [
  ['PP-13', 'takes every message as held', onKind('state-explored', (e) => ({ ...e, heldBits: '/w==' }))],
  ['PP-13', 'takes no message as held', onKind('state-explored', (e) => ({ ...e, heldBits: '' }))],
  ['PP-13', 'takes every state as recovered', onKind('state-explored', (e) => ({ ...e, recovered: true }))],
  ['PP-13', 'counts nothing as wrong', onKind('state-explored', (e) => ({ ...e, wrongCount: 0 }))],
  [
    'PP-13',
    'requires all messages from the beginning',
    onKind('state-explored', (e) => ({ ...e, prefix: 99 })),
  ],
  [
    'PP-13',
    'ignores an entry that had begun to reach the medium',
    onKind('state-explored', (e) => ({ ...e, entriesBegun: e.prefix })),
  ],
  [
    'PP-13',
    'requires messages that were offered to a receiver',
    onKind('log-position', (e) => ({ ...e, what: 'confirmed' })),
  ],
  [
    'PP-1',
    'takes a refusal as an acceptance',
    onKind('refused', (e) => ({ ...e, kind: 'consumed', how: 'answered' })),
  ],
  ['PP-1', 'takes every refusal as final', onKind('refused', (e) => ({ ...e, permanent: true }))],
  ['PP-1', 'takes no refusal as final', onKind('refused', (e) => ({ ...e, permanent: false }))],
  ['PP-1', 'takes a miss as a hit', onKind('fault', (e) => ({ ...e, hit: true }))],
  ['PP-1', 'ignores recipients', onKind('submitted', (e) => ({ ...e, recipients: 1 }))],
  ['PP-1', 'takes every wait as complete', onKind('drained', (e) => ({ ...e, complete: true }))],
  [
    'PP-1',
    'takes every answer as a confirmation',
    onKind('answered', (e) => ({ ...e, outcome: 'confirmed' })),
  ],
  [
    'PP-2',
    'takes unanswered as answered',
    onKind('consumed', (e) => ({ ...e, how: e.how === 'unanswered' ? 'answered' : e.how })),
  ],
  ['PP-2', 'takes answered as unanswered', onKind('consumed', (e) => ({ ...e, how: 'unanswered' }))],
  ['PP-2', 'takes answered as accepted', onKind('consumed', (e) => ({ ...e, how: 'accepted' }))],
  ['PP-2', 'takes every session as broken', onKind('settled', (e) => ({ ...e, how: 'broken' }))],
  ['PP-2', 'takes every session as ended in order', onKind('settled', (e) => ({ ...e, how: 'known' }))],
  ['PP-2', 'takes every index as damaged', onKind('fault', (e) => ({ ...e, indexDamaged: true }))],
  ['PP-2', 'takes no index as damaged', onKind('fault', (e) => ({ ...e, indexDamaged: false }))],
  ['PP-2', 'takes a miss as a hit', onKind('fault', (e) => ({ ...e, hit: true }))],
  ['PP-2', 'takes a power cut as a kill', onKind('fault', (e) => ({ ...e, scope: 'all-processes' }))],
  ['PP-2', 'ignores recipients', onKind('delivered', (e) => ({ ...e, recipients: [0] }))],
  ['PP-2', 'ignores the time', (event) => ({ ...event, atMs: 0 })],
  ['PP-3', 'takes every answer as indefinite', onKind('answered', (e) => ({ ...e, outcome: 'indefinite' }))],
  ['PP-4', 'does not compare digests', onKind('delivered', (e) => ({ ...e, digest: `digest-${e.id}` }))],
  ['PP-4', 'ignores which messages were damaged', onKind('fault', (e) => ({ ...e, rotted: [] }))],
  ['PP-5', 'does not compare digests', onKind('delivered', (e) => ({ ...e, digest: `digest-${e.id}` }))],
  [
    'PP-5',
    'takes every answer as a confirmation',
    onKind('answered', (e) => ({ ...e, outcome: 'confirmed' })),
  ],
  ['PP-6', 'reads an id from garbage', onKind('delivered', (e) => ({ ...e, id: '1' }))],
  ['PP-7', 'does not compare digests', onKind('delivered', (e) => ({ ...e, digest: `digest-${e.id}` }))],
  [
    'PP-7',
    'takes any report of kept-aside messages as sufficient',
    onKind('inspected', (e) => ({ ...e, keptAside: 9 })),
  ],
  ['PP-7', 'ignores the report of kept-aside messages', onKind('inspected', (e) => ({ ...e, keptAside: 0 }))],
  [
    'PP-8',
    'takes indefinite as rejected',
    onKind('answered', (e) => ({ ...e, outcome: e.outcome === 'indefinite' ? 'rejected' : e.outcome })),
  ],
  ['PP-8', 'takes every fault as a kill', onKind('fault', (e) => ({ ...e, fault: 'kill' }))],
  ['PP-9', 'takes every inspection as ok', onKind('inspected', (e) => ({ ...e, ok: true }))],
  ['PP-14', 'takes a miss as a hit', onKind('fault', (e) => ({ ...e, hit: true }))],
  ['PP-14', 'takes every fault as an io-error', onKind('fault', (e) => ({ ...e, fault: 'io-error' }))],
  [
    'PP-14',
    'takes every answer as a confirmation',
    onKind('answered', (e) => ({ ...e, outcome: 'confirmed' })),
  ],
  ['PP-14', 'takes every wait as complete', onKind('drained', (e) => ({ ...e, complete: true }))],
  ['PP-14', 'takes something as in flight at every fault', onKind('at-risk', (e) => ({ ...e, inFlight: 1 }))],
  ['PP-11', 'ignores the time', onKind('recovered', (e) => ({ ...e, tookMs: 0 }))],
  [
    'PP-10',
    'takes a failed recovery as a successful one',
    onKind('recovery-failed', ({ atMs, injection, waitedMs }) => ({
      kind: 'recovered',
      atMs,
      injection,
      tookMs: waitedMs,
    })),
  ],
  ...(['PP-12', 'PP-15', 'PP-16', 'PP-17', 'PP-18', 'PP-19'] as const).flatMap(misreadLossAcross),
  [
    'PP-20',
    'takes every answer as a confirmation',
    onKind('answered', (e) => ({ ...e, outcome: 'confirmed' })),
  ],
  [
    'PP-20',
    'takes all messages as those of one producer',
    onKind('submitted', (e) => ({ ...e, producer: 0 })),
  ],
  [
    'PP-20',
    'takes each message as that of another producer',
    onKind('submitted', (e) => ({ ...e, producer: e.atMs })),
  ],
  ['PP-20', 'ignores which messages were damaged', onKind('fault', (e) => ({ ...e, rotted: [] }))],
  ['PP-20', 'takes a miss as a hit', onKind('fault', (e) => ({ ...e, hit: true }))],
  ['PP-20', 'takes a crash as no crash', onKind('fault', (e) => ({ ...e, scope: 'none' }))],
];

/** Returns the misreadings that a checker of losses in a cluster must not make. */
function misreadLossInCluster(id: RequirementId): [RequirementId, string, Change][] {
  return [
    [id, 'takes a miss as a hit', onKind('fault', (e) => ({ ...e, hit: true }))],
    [id, 'takes its fault as a kill', onKind('fault', (e) => ({ ...e, fault: 'kill' }))],
    [id, 'takes every answer as a confirmation', onKind('answered', (e) => ({ ...e, outcome: 'confirmed' }))],
    [id, 'takes every wait as complete', onKind('drained', (e) => ({ ...e, complete: true }))],
  ];
}

/** Misreadings of what nodes did, and of what was done to them. */
const CLUSTER_MISREADINGS: [RequirementId, string, Change][] = [
  ...(['PP-21', 'PP-22', 'PP-23'] as const).flatMap(misreadLossInCluster),
  [
    'PP-21',
    'takes each cut as that of all nodes',
    onKind('fault', (e) => ({ ...e, nodes: ['a', 'b', 'c'] })),
  ],
  ['PP-21', 'takes each cut as that of one node', onKind('fault', (e) => ({ ...e, nodes: ['a'] }))],
  [
    'PP-22',
    'takes a kill as no crash',
    onKind('fault', (e) => (e.fault === 'kill' ? { ...e, scope: 'none' } : e)),
  ],
  ['PP-23', 'takes every link as whole', onKind('cluster-state', (e) => ({ ...e, cut: [] }))],
  ['PP-23', 'ignores promotions', onKind('cluster-state', ({ promoted: _, ...e }) => e)],
  [
    'PP-23',
    'takes every node as promoted',
    onKind('cluster-state', (e) => ({ ...e, promoted: ['a', 'b', 'd'] })),
  ],
  ['PP-23', 'takes every answer as that of the majority', onKind('answered', (e) => ({ ...e, node: 'b' }))],
  [
    'PP-23',
    'takes every answer as that of the isolated node',
    onKind('answered', (e) => ({ ...e, node: 'a' })),
  ],
  ['PP-23', 'takes every delivery as that of one node', onKind('delivered', (e) => ({ ...e, node: 'a' }))],
  ['PP-23', 'takes every consumption as answered', onKind('consumed', (e) => ({ ...e, how: 'answered' }))],
  ['PP-23', 'takes no consumption as answered', onKind('consumed', (e) => ({ ...e, how: 'unanswered' }))],
  ['PP-23', 'ignores what nodes hold', onKind('inspected', ({ live: _, ...e }) => e)],
  [
    'PP-23',
    'takes every report as that of another node',
    onKind('inspected', (e) => ({ ...e, node: `${e.atMs}` })),
  ],
  ['PP-23', 'ignores the time of a submit', onKind('submitted', (e) => ({ ...e, atMs: 1e9 }))],
  ['PP-23', 'ignores the time of an answer', onKind('answered', (e) => ({ ...e, atMs: 0 }))],
  ['PP-23', 'ignores what later crashes took', onKind('fault', ({ lostFiles: _, ...e }) => e)],
  [
    'PP-24',
    'takes every answer as a confirmation',
    onKind('answered', (e) => ({ ...e, outcome: 'confirmed' })),
  ],
  ['PP-24', 'takes every answer as that of the majority', onKind('answered', (e) => ({ ...e, node: 'b' }))],
  ['PP-24', 'takes every link as whole', onKind('cluster-state', (e) => ({ ...e, cut: [] }))],
  ['PP-24', 'takes every node as up', onKind('cluster-state', (e) => ({ ...e, down: [] }))],
  ['PP-24', 'ignores promotions', onKind('cluster-state', ({ promoted: _, ...e }) => e)],
  ['PP-24', 'ignores the time of an answer', onKind('answered', (e) => ({ ...e, atMs: 0 }))],
  ['PP-24', 'ignores the time of a change', onKind('cluster-state', (e) => ({ ...e, atMs: 0 }))],
  ['PP-24', 'ignores who caused an exit', onKind('service-exited', (e) => ({ ...e, expected: false }))],
];

/** Returns the misreadings that a checker of losses after one kind of fault must not make. */
function misreadLossAcross(id: RequirementId): [RequirementId, string, Change][] {
  return [
    [id, 'takes a miss as a hit', onKind('fault', (e) => ({ ...e, hit: true }))],
    [id, 'takes its fault as a kill', onKind('fault', (e) => ({ ...e, fault: 'kill' }))],
    [id, 'takes a crash as no crash', onKind('fault', (e) => ({ ...e, scope: 'none' }))],
    [id, 'takes every answer as a confirmation', onKind('answered', (e) => ({ ...e, outcome: 'confirmed' }))],
    [id, 'takes every refusal as final', onKind('refused', (e) => ({ ...e, permanent: true }))],
    [id, 'takes every wait as complete', onKind('drained', (e) => ({ ...e, complete: true }))],
    [id, 'ignores recipients', onKind('submitted', (e) => ({ ...e, recipients: 1 }))],
  ];
}

t.test('there is a misreading for every checker', async (t) => {
  t.same(
    [...new Set([...MISREADINGS, ...CLUSTER_MISREADINGS].map(([id]) => id))].sort(),
    [...REQUIREMENT_IDS].sort(),
  );
});

t.test('the cases detect a checker that misreads a fact', async (t) => {
  for (const [id, name, change] of [...MISREADINGS, ...CLUSTER_MISREADINGS]) {
    const sabotaged: Checker = (history, guarantee) => CHECKERS[id](history.map(change), guarantee);
    t.not(wrongOn(id, sabotaged).length, 0, `${id} ${name}`);
  }
});

t.test('the number of reported violations is bounded, and all of them are counted', async (t) => {
  const story = new HistoryBuilder().start('kill');
  for (let n = 0; n < MAX_REPORTED_VIOLATIONS + 5; n += 1) story.submit(`${n}`);
  const found = CHECKERS['PP-1'](story.drain().events, GUARANTEE);
  t.equal(found.violations.length, MAX_REPORTED_VIOLATIONS);
  t.equal(found.figures.lost, MAX_REPORTED_VIOLATIONS + 5);
});

t.test('a recovery time that is not claimed is not measured', async (t) => {
  const { recoverySeconds: _, ...guarantee } = GUARANTEE;
  t.equal(CHECKERS['PP-11'](new HistoryBuilder().crash().events, guarantee).verdict, 'not-measured');
});

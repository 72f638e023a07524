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

/** Names of the cases in which a checker does not find what it must. */
function wrongOn(id: RequirementId, checker: Checker): string[] {
  return casesOf(id)
    .filter((each) => run(checker, each).verdict !== each.expected)
    .map(({ name }) => name);
}

for (const id of REQUIREMENT_IDS) {
  t.test(`${id} is found as it is, in histories written by hand`, async (t) => {
    for (const each of casesOf(id)) {
      const found = run(CHECKERS[id], each);
      t.equal(found.verdict, each.expected, each.name);
      t.equal(found.requirement, id);
      t.ok(found.why.length > 0 && !found.why.includes('\n'), 'says why, on one line');
      t.equal(found.violations.length > 0, each.expected === 'fail', 'a failure names its violations');
      t.match(found.figures, each.figures ?? {});
    }
    t.same([...new Set(casesOf(id).map(({ expected }) => expected))].sort(), [...VERDICTS].sort());
  });

  t.test(`${id}: a checker that always says the same is caught`, async (t) => {
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

/** Kinds of event that each checker must take into account. */
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
};

t.test('a checker that is blind to a kind of event that it must see is caught', async (t) => {
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

/** Ways to misread a history, one per fact that a checker must tell apart. */
const MISREADINGS: [RequirementId, string, Change][] = [
  ['PP-13', 'takes every message for there', onKind('state-explored', (e) => ({ ...e, heldBits: '/w==' }))],
  ['PP-13', 'takes no message for there', onKind('state-explored', (e) => ({ ...e, heldBits: '' }))],
  ['PP-13', 'takes every state for recovered', onKind('state-explored', (e) => ({ ...e, recovered: true }))],
  ['PP-13', 'counts nothing as wrong', onKind('state-explored', (e) => ({ ...e, wrongCount: 0 }))],
  ['PP-13', 'asks for all from the beginning', onKind('state-explored', (e) => ({ ...e, prefix: 99 }))],
  [
    'PP-13',
    'takes what began for what had not',
    onKind('state-explored', (e) => ({ ...e, entriesBegun: e.prefix })),
  ],
  ['PP-13', 'asks for what was taken', onKind('log-position', (e) => ({ ...e, what: 'confirmed' }))],
  [
    'PP-1',
    'takes a refusal for an acceptance',
    onKind('refused', (e) => ({ ...e, kind: 'consumed', how: 'answered' })),
  ],
  ['PP-1', 'takes every refusal as final', onKind('refused', (e) => ({ ...e, permanent: true }))],
  ['PP-1', 'takes no refusal as final', onKind('refused', (e) => ({ ...e, permanent: false }))],
  ['PP-1', 'takes a miss for a hit', onKind('fault', (e) => ({ ...e, hit: true }))],
  ['PP-1', 'forgets recipients', onKind('submitted', (e) => ({ ...e, recipients: 1 }))],
  ['PP-1', 'takes every wait as complete', onKind('drained', (e) => ({ ...e, complete: true }))],
  ['PP-1', 'takes no for yes', onKind('answered', (e) => ({ ...e, outcome: 'confirmed' }))],
  [
    'PP-2',
    'takes unanswered for answered',
    onKind('consumed', (e) => ({ ...e, how: e.how === 'unanswered' ? 'answered' : e.how })),
  ],
  ['PP-2', 'takes answered for unanswered', onKind('consumed', (e) => ({ ...e, how: 'unanswered' }))],
  ['PP-2', 'takes answered for accepted', onKind('consumed', (e) => ({ ...e, how: 'accepted' }))],
  ['PP-2', 'takes every session as broken', onKind('settled', (e) => ({ ...e, how: 'broken' }))],
  ['PP-2', 'takes every session as ended in order', onKind('settled', (e) => ({ ...e, how: 'known' }))],
  ['PP-2', 'takes every index as damaged', onKind('fault', (e) => ({ ...e, indexDamaged: true }))],
  ['PP-2', 'takes no index as damaged', onKind('fault', (e) => ({ ...e, indexDamaged: false }))],
  ['PP-2', 'takes a miss for a hit', onKind('fault', (e) => ({ ...e, hit: true }))],
  ['PP-2', 'takes a power cut for a kill', onKind('fault', (e) => ({ ...e, scope: 'all-processes' }))],
  ['PP-2', 'forgets recipients', onKind('delivered', (e) => ({ ...e, recipients: [0] }))],
  ['PP-2', 'has no clock', (event) => ({ ...event, atMs: 0 })],
  ['PP-3', 'takes no for neither', onKind('answered', (e) => ({ ...e, outcome: 'indefinite' }))],
  ['PP-4', 'does not compare', onKind('delivered', (e) => ({ ...e, digest: `digest-${e.id}` }))],
  ['PP-4', 'excuses what rotted nowhere', onKind('fault', (e) => ({ ...e, rotted: [] }))],
  ['PP-5', 'does not compare', onKind('delivered', (e) => ({ ...e, digest: `digest-${e.id}` }))],
  ['PP-5', 'takes neither for yes', onKind('answered', (e) => ({ ...e, outcome: 'confirmed' }))],
  ['PP-6', 'reads a number into garbage', onKind('delivered', (e) => ({ ...e, id: '1' }))],
  ['PP-7', 'does not compare', onKind('delivered', (e) => ({ ...e, digest: `digest-${e.id}` }))],
  ['PP-7', 'takes whatever is named as enough', onKind('inspected', (e) => ({ ...e, keptAside: 9 }))],
  ['PP-7', 'does not hear what is named', onKind('inspected', (e) => ({ ...e, keptAside: 0 }))],
  [
    'PP-8',
    'takes neither for no',
    onKind('answered', (e) => ({ ...e, outcome: e.outcome === 'indefinite' ? 'rejected' : e.outcome })),
  ],
  ['PP-8', 'takes any fault for a full queue', onKind('fault', (e) => ({ ...e, fault: 'kill' }))],
  ['PP-9', 'believes that all is well', onKind('inspected', (e) => ({ ...e, ok: true }))],
  ['PP-14', 'takes a miss for a hit', onKind('fault', (e) => ({ ...e, hit: true }))],
  ['PP-14', 'takes any fault for an error', onKind('fault', (e) => ({ ...e, fault: 'io-error' }))],
  ['PP-14', 'takes no for yes', onKind('answered', (e) => ({ ...e, outcome: 'confirmed' }))],
  ['PP-14', 'takes every wait as complete', onKind('drained', (e) => ({ ...e, complete: true }))],
  ['PP-14', 'sees something under way always', onKind('at-risk', (e) => ({ ...e, inFlight: 1 }))],
  ['PP-11', 'has no clock', onKind('recovered', (e) => ({ ...e, tookMs: 0 }))],
  [
    'PP-10',
    'takes a recovery that failed for one that did not',
    onKind('recovery-failed', ({ atMs, injection, waitedMs }) => ({
      kind: 'recovered',
      atMs,
      injection,
      tookMs: waitedMs,
    })),
  ],
  ...(['PP-12', 'PP-15', 'PP-16', 'PP-17', 'PP-18', 'PP-19'] as const).flatMap(misreadLossAcross),
];

/** What a checker of losses across one kind of fault must tell apart. */
function misreadLossAcross(id: RequirementId): [RequirementId, string, Change][] {
  return [
    [id, 'takes a miss for a hit', onKind('fault', (e) => ({ ...e, hit: true }))],
    [id, 'takes its fault for another', onKind('fault', (e) => ({ ...e, fault: 'kill' }))],
    [id, 'takes a crash for none', onKind('fault', (e) => ({ ...e, scope: 'none' }))],
    [id, 'takes no for yes', onKind('answered', (e) => ({ ...e, outcome: 'confirmed' }))],
    [id, 'takes every refusal as final', onKind('refused', (e) => ({ ...e, permanent: true }))],
    [id, 'takes every wait as complete', onKind('drained', (e) => ({ ...e, complete: true }))],
    [id, 'forgets recipients', onKind('submitted', (e) => ({ ...e, recipients: 1 }))],
  ];
}

t.test('every checker has a fact to misread', async (t) => {
  t.same([...new Set(MISREADINGS.map(([id]) => id))].sort(), [...REQUIREMENT_IDS].sort());
});

t.test('a checker that misreads a fact is caught', async (t) => {
  for (const [id, name, change] of MISREADINGS) {
    const sabotaged: Checker = (history, guarantee) => CHECKERS[id](history.map(change), guarantee);
    t.not(wrongOn(id, sabotaged).length, 0, `${id} ${name}`);
  }
});

t.test('no more violations are told than anybody reads, and all are counted', async (t) => {
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

import fc from 'fast-check';
import t from 'tap';
import { GUARANTEE } from '../fixtures/cases.js';
import { type CrashOptions, HistoryBuilder } from '../fixtures/history-builder.js';
import type { HistoryEvent } from '../history/events.js';
import { CHECKERS, evaluate } from './evaluate.js';
import { messageEvents } from './message-events.js';
import { vacuityReason } from './vacuity.js';

const TARGET = { guarantee: { ...GUARANTEE, faults: ['kill' as const] }, verify: ['verify'] };
/** Makes a run without a violation. */
const good = (words: CrashOptions = {}, ...faults: string[]) =>
  new HistoryBuilder()
    .start(...(faults.length > 0 ? faults : ['kill']))
    .submitAndConsume('1')
    .submit('2')
    .crash(words)
    .inspect(true)
    .deliver('2')
    .consume()
    .submit('3', 'indefinite')
    .deliver('3')
    .consume()
    .drain();

const verdictOf = (history: HistoryBuilder, target: Parameters<typeof evaluate>[1] = TARGET) =>
  evaluate(history.events, target);

t.test('a run that measured every requirement in its scope passes', async (t) => {
  const found = verdictOf(good());
  t.equal(found.verdict, 'pass', found.why);
  t.same(found.unclaimed, [
    'PP-7',
    'PP-8',
    'PP-12',
    'PP-13',
    'PP-14',
    'PP-16',
    'PP-17',
    'PP-18',
    'PP-19',
    'PP-20',
    'PP-21',
    'PP-22',
    'PP-23',
    'PP-24',
  ]);
  t.match(
    found.findings.find(({ requirement }) => requirement === 'PP-3'),
    { verdict: 'not-measured' },
    'a requirement that needs a full queue is reported as not measured and is out of scope',
  );
});

t.test('one failed requirement fails the run, and the verdict names it', async (t) => {
  const found = verdictOf(good().submit('4').drain());
  t.equal(found.verdict, 'fail');
  t.match(found.why, /^PP-1: 1 of 3 confirmed messages were lost$/);
  t.equal(
    verdictOf(good().submit('4', 'rejected').deliver('4')).verdict,
    'fail',
    'also when it is out of scope',
  );
});

t.test('a failure fails the run even when nothing was at risk', async (t) => {
  t.equal(verdictOf(good({ atRisk: 0 }).submit('4').drain()).verdict, 'fail');
});

t.test('a run that proves nothing is not measured, and the verdict has the reason', async (t) => {
  const cases: [HistoryBuilder, RegExp][] = [
    [good({ atRisk: 0 }), /nothing was at risk at any of 1 crashes/],
    [good({ hit: false }), /none of 1 faults hit/],
    [new HistoryBuilder().start('kill').submitAndConsume('1').drain(), /no fault was tried/],
    [new HistoryBuilder().start('kill').submit('1', 'rejected').crash().drain(), /nothing was confirmed/],
  ];
  for (const [history, why] of cases) {
    const found = verdictOf(history);
    t.equal(found.verdict, 'not-measured');
    t.match(found.why, why);
    t.same(
      found.findings.filter(({ verdict }) => verdict === 'pass'),
      [],
      'no requirement passes',
    );
  }
});

t.test('a run without a crash needs no message at risk', async (t) => {
  t.equal(vacuityReason(good({ fault: 'clock', scope: 'none', atRisk: 0 }).events), null);
});

t.test('a claimed requirement in scope that was not measured keeps the run from passing', async (t) => {
  const claims = {
    ...TARGET,
    guarantee: { ...TARGET.guarantee, faults: ['kill' as const, 'full' as const] },
  };
  t.equal(verdictOf(good(), claims).verdict, 'pass', 'full was not tried');
  const found = verdictOf(good({}, 'kill', 'disk-full'), claims);
  t.equal(found.verdict, 'not-measured', 'full was to be tried, and was not');
  t.match(found.why, /PP-3: no rejected messages; PP-8: the queue was never full/);
});

t.test('a requirement whose situation cannot be forced does not keep a run from passing', async (t) => {
  const found = verdictOf(
    new HistoryBuilder()
      .start('kill')
      .submitAndConsume('1')
      .submit('2')
      .crash()
      .inspect(true)
      .submitAndConsume('3')
      .deliver('2')
      .consume()
      .drain(),
  );
  t.equal(found.verdict, 'pass', found.why);
  t.match(
    found.findings.find(({ requirement }) => requirement === 'PP-5'),
    { verdict: 'not-measured' },
  );
});

t.test('requirements that a target does not claim are not evaluated', async (t) => {
  const modest = { guarantee: { faults: ['kill' as const], duplicatesPerCrash: 'unbounded' as const } };
  const found = verdictOf(good().deliver('1').consume(), modest);
  t.equal(found.verdict, 'pass', found.why);
  t.same(found.unclaimed, [
    'PP-2',
    'PP-7',
    'PP-8',
    'PP-9',
    'PP-11',
    'PP-12',
    'PP-13',
    'PP-14',
    'PP-16',
    'PP-17',
    'PP-18',
    'PP-19',
    'PP-20',
    'PP-21',
    'PP-22',
    'PP-23',
    'PP-24',
  ]);
});

t.test(
  'the events of a message are its own and the faults from its submit to its last delivery, in order, and those of no other message',
  async (t) => {
    const history = new HistoryBuilder()
      .start('kill')
      .submitAndConsume('0')
      .crash()
      .submit('1')
      .crash()
      .deliver('1')
      .consume('accepted')
      .settle('known', 1, 2);
    const told = messageEvents(history.crash().submitAndConsume('9').drain().events, '1');
    t.same(
      told.map(({ kind }) => kind),
      ['submitted', 'answered', 'fault', 'recovered', 'delivered', 'consumed', 'settled'],
    );
    t.match(told[6], { sequences: [2] });
    t.same(messageEvents(history.events, 'nobody'), []);
  },
);

t.test(
  'the events of a damaged message include the damage, and the number of fault events is bounded',
  async (t) => {
    const rotted = new HistoryBuilder().submit('1').fault({ fault: 'data-rot', rotted: ['1'] });
    t.match(messageEvents(rotted.events, '1').at(-1), { kind: 'fault', rotted: ['1'] });
    const long = new HistoryBuilder().submit('1');
    for (let n = 0; n < 500; n += 1) long.crash();
    t.ok(messageEvents(long.events, '1').length < 60);
  },
);

/**
 * Generates runs of a correct target: messages that are consumed in the end, with refusals and crashes in
 * between.
 */
const runs = fc
  .array(fc.record({ crash: fc.boolean(), before: fc.boolean(), refusals: fc.nat(2) }), {
    minLength: 1,
    maxLength: 30,
  })
  .map((steps) => {
    const history = new HistoryBuilder().start('kill');
    steps.forEach(({ crash, before, refusals }, n) => {
      history.submit(`${n}`);
      if (crash && before) history.crash();
      for (let refused = 0; refused < refusals; refused += 1) history.deliver(`${n}`).refuse(false);
      history.deliver(`${n}`).consume();
      if (crash && !before) history.crash();
    });
    return history.drain().events;
  });
const pick = <T>(items: readonly T[], n: number): T => items[n % items.length] as T;
const idOf = (event: HistoryEvent) => ('id' in event ? event.id : undefined);

t.test('a passing run fails PP-1 with one lost message when any one consumption is removed', async (t) => {
  fc.assert(
    fc.property(runs, fc.nat(), fc.boolean(), (history, n, all) => {
      const consumption = pick(
        history.filter(({ kind }) => kind === 'consumed'),
        n,
      );
      const gone = (event: HistoryEvent) =>
        idOf(event) === idOf(consumption) &&
        (event.kind === 'consumed' || (all && event.kind === 'delivered'));
      const found = CHECKERS['PP-1'](
        history.filter((event) => !gone(event)),
        GUARANTEE,
      );
      const before = CHECKERS['PP-1'](history, GUARANTEE);
      return before.verdict === 'pass' && found.verdict === 'fail' && found.figures.lost === 1;
    }),
  );
  t.pass('in every run that was tried');
});

t.test('PP-2 fails with exactly one redelivery more than the bound allows', async (t) => {
  fc.assert(
    fc.property(runs, fc.integer({ min: 0, max: 3 }), fc.nat(), (history, bound, n) => {
      const guarantee = { ...GUARANTEE, duplicatesPerCrash: bound };
      const crashes = history.filter(({ kind }) => kind === 'fault').length;
      const id =
        idOf(
          pick(
            history.filter(({ kind }) => kind === 'consumed'),
            n,
          ),
        ) ?? null;
      const extended = [...history];
      for (let sequence = 10_000; sequence < 10_000 + bound * crashes; sequence += 1)
        extended.push(...copy(sequence, id));
      const within = CHECKERS['PP-2'](extended, guarantee).verdict;
      const beyond = CHECKERS['PP-2']([...extended, ...copy(20_000, id)], guarantee).verdict;
      return within === 'pass' && beyond === 'fail';
    }),
  );
  t.pass('in every run that was tried');
  t.pass('in every run that was tried');
});

function copy(sequence: number, id: string | null): HistoryEvent[] {
  return [
    { kind: 'delivered', atMs: 1e6, sequence, id, sizeBytes: 10, digest: `digest-${id}`, recipients: [0] },
    { kind: 'consumed', atMs: 1e6, sequence, id, how: 'answered' },
  ];
}

t.test('PP-20 fails when any two messages that waited at a crash change places', async (t) => {
  const positions = fc.tuple(fc.nat(19), fc.nat(19)).filter(([a, b]) => a !== b);
  fc.assert(
    fc.property(positions, fc.nat(3), ([a, b], consumedBefore) => {
      const ids = Array.from({ length: 20 + consumedBefore }, (_, n) => `${n}`);
      const history = new HistoryBuilder().start('kill');
      for (const id of ids) history.submit(id);
      for (const id of ids.slice(0, consumedBefore)) history.deliver(id).consume();
      history.crash();
      const rest = ids.slice(consumedBefore);
      const swapped = rest.map((id, at) => (at === a ? pick(rest, b) : at === b ? pick(rest, a) : id));
      const verdictFor = (order: readonly string[]) => {
        const run = [...history.events];
        for (const [at, id] of order.entries()) run.push(...copy(1000 + at, id));
        return CHECKERS['PP-20'](run, GUARANTEE).verdict;
      };
      return verdictFor(rest) === 'pass' && verdictFor(swapped) === 'fail';
    }),
  );
  t.pass('in every run that was tried');
});

/**
 * Generates runs of a correct cluster: a node is isolated, is down, or loses its disk, and the others confirm meanwhile.
 */
const clusterRuns = fc
  .array(
    fc.record({
      fault: fc.constantFrom('partition', 'cut-then-elect', 'node-loss', 'kill'),
      node: fc.nat(2),
      before: fc.nat(3),
      during: fc.integer({ min: 1, max: 4 }),
      graceMs: fc.nat(5000),
    }),
    { minLength: 1, maxLength: 8 },
  )
  .map((injections) => {
    const nodes = ['a', 'b', 'c'];
    const history = new HistoryBuilder().startOver('nats', 'partition').install(1, nodes);
    let number = 0;
    const submit = (node: string, outcome: 'confirmed' | 'rejected' = 'confirmed') =>
      history.submitTo(node, `${number++}`, outcome);
    for (const { fault, node, before, during, graceMs } of injections) {
      const harmed = pick(nodes, node);
      const others = nodes.filter((one) => one !== harmed);
      for (let n = 0; n < before; n++) submit(pick(nodes, n));
      const isCut = fault === 'partition' || fault === 'cut-then-elect';
      if (isCut) history.state(others.map((other) => `${harmed}-${other}`));
      else history.state([], [harmed]);
      history.advance(graceMs);
      if (isCut) submit(harmed, 'rejected');
      for (let n = 0; n < during; n++) submit(pick(others, n));
      history.advance(graceMs).state();
      const scope = fault === 'partition' ? 'none' : fault === 'kill' ? 'some-processes' : 'machine';
      history.crash({ fault, scope, nodes: [harmed] });
      submit(harmed);
    }
    const ids = history.events.flatMap((event) =>
      event.kind === 'answered' && event.outcome === 'confirmed' ? [event.id] : [],
    );
    for (const id of ids) history.deliver(id, { node: 'a' }).consume();
    return history.drain().events;
  });
const CLUSTER_GUARANTEE = { ...GUARANTEE, cluster: { tolerates: 1, electionSeconds: 20 } };
const CLUSTER_REQUIREMENTS = ['PP-21', 'PP-22', 'PP-23', 'PP-24'] as const;

t.test('a correct cluster fails no requirement of clusters, and passes those whose fault hit', async (t) => {
  let passed = 0;
  fc.assert(
    fc.property(clusterRuns, (history) => {
      const faults = new Set(history.flatMap((event) => (event.kind === 'fault' ? [event.fault] : [])));
      const verdicts = CLUSTER_REQUIREMENTS.map((id) => CHECKERS[id](history, CLUSTER_GUARANTEE).verdict);
      const isTried = ['cut-then-elect', 'node-loss', 'partition'].map((fault) => faults.has(fault));
      passed += verdicts.filter((verdict) => verdict === 'pass').length;
      return [...isTried, true].every((tried, at) => verdicts[at] === (tried ? 'pass' : 'not-measured'));
    }),
  );
  t.ok(passed > 100, `${passed} requirements passed`);
});

t.test(
  'a message that a cluster loses fails the requirement of the injection that ended next, and no other',
  async (t) => {
    const requirementOf: Record<string, string> = {
      'cut-then-elect': 'PP-21',
      'node-loss': 'PP-22',
      partition: 'PP-23',
    };
    let failed = 0;
    fc.assert(
      fc.property(clusterRuns, fc.nat(), (history, n) => {
        const id = idOf(
          pick(
            history.filter(({ kind }) => kind === 'delivered'),
            n,
          ),
        );
        const isGone = (event: HistoryEvent) =>
          (event.kind === 'delivered' || event.kind === 'consumed') && event.id === id;
        const run = history.filter((event) => !isGone(event));
        const confirmedAt = run.findIndex((event) => event.kind === 'answered' && event.id === id);
        // Each injection ends with its recovery.
        const end = run.find((event, at) => event.kind === 'recovered' && at > confirmedAt);
        const fault = run.find(
          (event) => event.kind === 'fault' && end?.kind === 'recovered' && event.injection === end.injection,
        );
        const expected = fault?.kind === 'fault' ? requirementOf[fault.fault] : undefined;
        const failures = CLUSTER_REQUIREMENTS.filter(
          (one) => CHECKERS[one](run, CLUSTER_GUARANTEE).verdict === 'fail',
        );
        failed += failures.length;
        return failures.join() === (expected ?? '');
      }),
    );
    t.ok(failed > 10, `${failed} runs failed`);
  },
);

t.test(
  'a confirmation by the isolated node fails PP-23, long after the cut and long before the healing',
  async (t) => {
    let found = 0;
    fc.assert(
      fc.property(clusterRuns, (history) => {
        const rejected = history.find((event) => event.kind === 'answered' && event.outcome === 'rejected');
        if (rejected?.kind !== 'answered') return true;
        const state = history.findLast(
          (event) => event.kind === 'cluster-state' && event.atMs < rejected.atMs,
        );
        const healing = history.find((event) => event.kind === 'cluster-state' && event.atMs > rejected.atMs);
        const run = history.map((event) =>
          event === rejected ? { ...rejected, outcome: 'confirmed' as const } : event,
        );
        const isSure =
          rejected.atMs - (state?.atMs ?? 0) > 2002 && (healing?.atMs ?? 0) - rejected.atMs >= 1000;
        const { figures } = CHECKERS['PP-23'](run, CLUSTER_GUARANTEE);
        found += figures.confirmedByMinority ?? 0;
        return !isSure || figures.confirmedByMinority === 1;
      }),
    );
    t.ok(found > 5, `${found} were found`);
  },
);

t.test('a changed digest of any delivery fails PP-4', async (t) => {
  fc.assert(
    fc.property(runs, fc.nat(), (history, n) => {
      const changed = pick(
        history.filter(({ kind }) => kind === 'delivered'),
        n,
      );
      const found = CHECKERS['PP-4'](
        history.map((event) => (event === changed ? { ...changed, digest: 'x' } : event)) as HistoryEvent[],
        GUARANTEE,
      );
      return found.verdict === 'fail' && found.figures.corrupted === 1;
    }),
  );
  t.pass('in every run that was tried');
});

t.test('a rejection of any delivered message fails PP-3', async (t) => {
  fc.assert(
    fc.property(runs, fc.nat(), (history, n) => {
      const changed = pick(
        history.filter(({ kind }) => kind === 'answered'),
        n,
      );
      const found = CHECKERS['PP-3'](
        history.map((event) =>
          event === changed ? { ...changed, outcome: 'rejected' } : event,
        ) as HistoryEvent[],
        GUARANTEE,
      );
      return found.verdict === 'fail';
    }),
  );
  t.pass('in every run that was tried');
});

t.test(
  'the cost of the checkers is linear: half a million events with a thousand crashes are evaluated',
  async (t) => {
    const history = new HistoryBuilder().start('kill');
    for (let n = 0; n < 120_000; n += 1) {
      history.submitAndConsume(`${n}`);
      if (n % 120 === 0) history.crash({ indexDamaged: true }).deliver(`${n}`).consume();
    }
    const found = evaluate(history.inspect(true).drain().events, {
      ...TARGET,
      guarantee: { ...TARGET.guarantee, duplicatesAfterIndexLoss: 'unbounded' },
    });
    t.equal(found.verdict, 'pass', found.why);
    t.match(found.findings[1]?.figures, { afterIndexLoss: 1000 });
  },
);

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import t from 'tap';
import { certified, goodRun } from '../fixtures/certified.js';
import type { HistoryEvent } from '../history/events.js';
import { type Evidence, readEvidence, sha256 } from './evidence.js';
import { PlausibilityCheck, programDifferences } from './plausibility.js';

const NOW_MS = Date.UTC(2026, 5, 1);
const KILLS = [{ fault: 'kill' }, { fault: 'kill-recovery' }] as const;

/** Reads plausible evidence of the runs of two levels. */
function evidenceOf(t: { teardown(remove: () => void): void }): Evidence {
  const runs = {
    process: goodRun(...KILLS).events,
    torn: goodRun({ fault: 'tear', scope: 'machine' }).events,
  };
  const { dir } = certified(runs, ['kill', 'tear']);
  t.teardown(() => rmSync(dirname(dir), { recursive: true, force: true }));
  return readEvidence(dir);
}

/** Checks evidence whose events are in memory. */
function implausibilities(evidence: Evidence, nowMs: number): string[] {
  const check = new PlausibilityCheck();
  for (const { file, events } of evidence.histories) events.forEach(check.observe(evidence, file.name));
  return check.problems(evidence.facts, nowMs);
}

/** Replaces the events of the first run. */
function withEvents(evidence: Evidence, change: (events: HistoryEvent[]) => HistoryEvent[]): Evidence {
  const [first, ...others] = evidence.histories;
  if (first === undefined) throw new Error('expected a run');
  return { ...evidence, histories: [{ ...first, events: change([...first.events]) }, ...others] };
}

/** Changes the first event of a kind. */
function withEvent<K extends HistoryEvent['kind']>(
  evidence: Evidence,
  kind: K,
  change: Partial<Extract<HistoryEvent, { kind: K }>>,
): Evidence {
  return withEvents(evidence, (events) => {
    const at = events.findIndex((event) => event.kind === kind);
    return events.map((event, index) => (index === at ? ({ ...event, ...change } as HistoryEvent) : event));
  });
}

t.test('the evidence of good runs is plausible', async (t) => {
  t.same(implausibilities(evidenceOf(t), NOW_MS), []);
});

t.test('evidence of a cluster names no other nodes than those of the target', async (t) => {
  const asCluster = (events: HistoryEvent[]): HistoryEvent[] =>
    events.map((event) =>
      event.kind === 'installed'
        ? { ...event, nodes: ['a', 'b'] }
        : event.kind === 'answered' || event.kind === 'delivered'
          ? { ...event, node: 'a' }
          : event,
    );
  const good = withEvents(evidenceOf(t), asCluster);
  t.same(implausibilities(good, NOW_MS), []);
  const state = (down: string[]): HistoryEvent => ({
    ...{ kind: 'cluster-state', atMs: 4, injection: 1, down, cut: [['a', 'b']] },
  });
  const withState = (down: string[]) =>
    withEvents(good, (all) => [
      ...all.slice(0, 3),
      { ...state(down), atMs: all[2]?.atMs ?? 0 },
      ...all.slice(3),
    ]);
  t.same(implausibilities(withState(['b']), NOW_MS), []);
  const cases: [Evidence, RegExp][] = [
    [
      withEvent(good, 'answered', { node: 'c' }),
      /: the answer to message a0 names the node c; expected one of a, b/,
    ],
    [withEvent(good, 'delivered', { node: 'c' }), /: delivery 1 names the node c/],
    [withEvent(good, 'fault', { nodes: ['c'] }), /: kill 1 names the node c/],
    [withState(['c']), /: the state of the cluster at injection 1 names the node c/],
    [withEvent(evidenceOf(t), 'answered', { node: 'a' }), /names the node a; the target has none/],
    [
      withEvents(good, (all) =>
        all.map(
          (event) => (event.kind === 'answered' ? { ...event, node: undefined } : event) as HistoryEvent,
        ),
      ),
      /: message a0 was confirmed by no node of a target with nodes/,
    ],
  ];
  for (const [evidence, problem] of cases) t.match(implausibilities(evidence, NOW_MS), [problem]);
});

t.test('evidence that contradicts itself is named in one line, with the place', async (t) => {
  const good = evidenceOf(t);
  const name = /^evidence\/process\.history\.jsonl\.gz:/;
  const cases: [string, Evidence, RegExp][] = [
    [
      'no start',
      withEvents(good, (all) => all.slice(1)),
      /:1: the first event is installed, expected run-started/,
    ],
    ['no end', withEvents(good, (all) => all.slice(0, -1)), /: the run has no end/],
    [
      'more after the end',
      withEvents(good, (all) => [...all, ...all.slice(-1)]),
      /: run-ended after the end of the run/,
    ],
    [
      'two starts',
      withEvents(good, ([first, ...all]) => (first === undefined ? all : [first, first, ...all])),
      /:2: event 2 starts the run again/,
    ],
    ['time runs backwards', withEvent(good, 'drained', { atMs: 0 }), /: drained at 0 ms, after an event at/],
    [
      'a start that is no time',
      withEvent(good, 'run-started', { startedAt: 'yesterday' }),
      /:1: 'yesterday' is no time of a start/,
    ],
    [
      'another target',
      withEvent(good, 'run-started', { target: 'other' }),
      /:1: target is other, and small in the rest/,
    ],
    [
      'another protocol',
      withEvent(good, 'run-started', { protocol: 'smtp' }),
      /:1: protocol is smtp, and http/,
    ],
    ['another kit', withEvent(good, 'run-started', { kitVersion: '9' }), /:1: kitVersion is 9, and 1\.2\.3/],
    ['another seed', withEvent(good, 'run-started', { seed: 99 }), /:1: seed is 99, and 1/],
    [
      'nothing was started',
      withEvents(good, (all) => all.filter(({ kind }) => kind !== 'service-started')),
      /: message a0 was submitted before a service was started/,
    ],
    [
      'a digest that is none',
      withEvent(good, 'submitted', { digest: 'abc' }),
      /: message a0 has the digest 'abc', expected a SHA-256/,
    ],
    ['an empty message', withEvent(good, 'submitted', { sizeBytes: 0 }), /: message a0 has 0 bytes/],
    [
      'an answer to nothing',
      withEvent(good, 'answered', { id: 'zz' }),
      /: message zz was answered and not submitted before/,
    ],
    [
      'a delivery out of order',
      withEvent(good, 'delivered', { sequence: 7 }),
      /: delivery 7 came after delivery 0/,
    ],
    [
      'a consumption of nothing',
      withEvent(good, 'consumed', { sequence: 70 }),
      /: delivery 70 was consumed and had not come/,
    ],
    [
      'more at risk than there is',
      withEvent(good, 'at-risk', { confirmedUndelivered: 7790 }),
      /: 7790 messages at risk at injection 1, and 1 were confirmed and not delivered/,
    ],
    [
      'more in flight than there is',
      withEvent(good, 'at-risk', { inFlight: 2 }),
      /: 2 messages at risk at injection 1, and 0 were submitted and not answered/,
    ],
    [
      'more in delivery than there is',
      withEvent(good, 'at-risk', { inDelivery: 3 }),
      /: 3 messages at risk at injection 1, and 0 were delivered/,
    ],
    [
      'a hit that nothing preceded',
      withEvents(good, (all) => all.filter(({ kind }) => kind !== 'at-risk')),
      /: kill hit at injection 1, without a count of the messages at risk/,
    ],
    [
      'an unknown fault',
      withEvent(good, 'fault', { fault: 'meteor' }),
      /: the fault meteor, which no kit makes/,
    ],
    [
      'a recovery of nothing',
      withEvent(good, 'recovered', { injection: 9 }),
      /: a recovery of injection 9, which was not made/,
    ],
    [
      'a recovery longer than the run',
      withEvent(good, 'recovered', { tookMs: 60_000 }),
      /: a recovery of 60000 ms, \d+ ms after injection 1/,
    ],
    [
      'a wait longer than the run',
      withEvent(good, 'drained', { waitedMs: 60_000 }),
      /: a wait of 60000 ms ended at/,
    ],
  ];
  for (const [what, evidence, expected] of cases) {
    const problems = implausibilities(evidence, NOW_MS);
    t.ok(
      problems.some((problem) => expected.test(problem) && name.test(problem)),
      `${what}: ${problems.join('; ')}`,
    );
    t.ok(problems.length <= 3, `${what}: few lines`);
  }
});

t.test('times of the runs that cannot be are named', async (t) => {
  const good = evidenceOf(t);
  const [first, second] = good.histories;
  if (first === undefined || second === undefined) throw new Error('expected two runs');
  const before = Date.UTC(2025, 0, 1);
  t.match(implausibilities(good, before), [
    /^evidence\/process.*: its run ended in the future, at 2026-01-01T00:00/,
    /^evidence\/torn.*: its run ended in the future/,
  ]);
  t.match(implausibilities({ ...good, histories: [second, first] }, NOW_MS), [
    /^evidence\/process.*: its run began at 2026-01-01T00:00:00.000Z, before the run before it had ended/,
  ]);
  t.match(implausibilities({ ...good, facts: { ...good.facts, budgetMs: 0 } }, NOW_MS), [/a budget of 0 ms/]);
  const hours = 5 * 3_600_000;
  t.match(
    implausibilities(withEvent(good, 'run-ended', { atMs: hours }), NOW_MS).at(-1),
    /the runs took 18000 s of a budget of 1 s/,
  );
});

t.test('a message for several recipients is at risk until all have consumed it', async (t) => {
  const good = evidenceOf(t);
  const digest = sha256('m');
  const stated = (confirmedUndelivered: number): HistoryEvent[] => [
    { kind: 'submitted', atMs: 2, id: 'm', producer: 0, sizeBytes: 5, digest, recipients: 2, shape: 'tiny' },
    { kind: 'answered', atMs: 2, id: 'm', outcome: 'confirmed', detail: '' },
    // The same recipient twice, as after a redelivery.
    ...[1, 2].flatMap((sequence): HistoryEvent[] => [
      { kind: 'delivered', atMs: 2, sequence, id: 'm', sizeBytes: 5, digest, recipients: [1] },
      { kind: 'consumed', atMs: 2, sequence, id: 'm', how: 'answered' },
    ]),
    { kind: 'at-risk', atMs: 2, injection: 1, confirmedUndelivered, inFlight: 0, inDelivery: 0 },
  ];
  const run = (count: number) =>
    withEvents(good, (all) => [...all.slice(0, 3), ...stated(count), ...all.slice(-1)]);
  t.same(implausibilities(run(1), NOW_MS), []);
  t.match(implausibilities(run(2), NOW_MS), [/: 2 messages at risk at injection 1, and 1 were confirmed/]);
});

t.test('a program that differs on this machine is a note', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'plugpull-programs-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  writeFileSync(join(dir, 'program'), 'x');
  const path = join(dir, 'program');
  const one = (digest: string, at = path) =>
    programDifferences({ programs: [{ name: 'p', path: at, sha256: digest }] });
  t.same(one(sha256('x')), []);
  t.match(one(sha256('y')), [/^p: \S+program of this machine is another build than the certified one/]);
  t.same(one(sha256('y'), join(dir, 'missing')), []);
  writeFileSync(path, 'y');
  t.same(one(sha256('y')), []);
});

import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { Evaluation } from '../../conformance/checkers/evaluate.js';
import type { HistoryEvent } from '../../conformance/history/events.js';
import { Recorder } from '../../conformance/history/recorder.js';
import { recordReceipts } from '../../conformance/protocols/receipts.js';
import { protocolOf } from '../../conformance/protocols/registry/registry.js';
import { DEFAULT_FILESYSTEM } from '../../faults/power/filesystem.js';
import { powerCut } from '../../faults/power/power-cut.js';
import { inProcessRuntime, inProcessTarget, type QueueDefect } from '../fixtures/in-process-runtime.js';
import { TestWorkspace } from '../fixtures/kit.js';
import { PhaseClock } from '../host/phase-clock.js';
import { newRunId, Registry, registeredRuns } from '../host/registry.js';
import { type RerunOptions, rerun } from '../replay/rerun.js';
import type { CommandResult } from '../runtime/runtime.js';
import { Pace } from './pace.js';
import type { RoundPhase } from './phases.js';
import { runRound } from './round.js';
import type { PlannedInjection, Schedule } from './schedule.js';

/**
 * Time limit far above what a round needs in these tests: an injection waits for its confirmations, and not
 * for the clock.
 */
const GENEROUS_MS = 60_000;

interface RoundRun {
  events: readonly HistoryEvent[];
  evaluation: Evaluation;
  dir: string;
  state: string;
}

/** Runs one round with exactly these injections against a queue in this process. */
async function runRoundWith(
  t: { teardown(remove: () => void): void },
  defect: QueueDefect,
  injections: Pick<PlannedInjection, 'fault' | 'afterConfirms'>[],
  options: {
    install?: Partial<CommandResult>;
    guarantee?: Record<string, unknown>;
    commands?: { verify?: string[]; nudge?: string[] };
    signal?: AbortSignal;
    progress?: (line: string) => void;
    timing?: Pick<RerunOptions, 'lastFaultMs' | 'clock' | 'pace'>;
  } = {},
): Promise<RoundRun> {
  const place = new TestWorkspace();
  t.teardown(() => place.remove());
  process.env.PLUGPULL_STATE = place.state;
  const registry = new Registry(newRunId());
  const dir = join(place.dir, 'round');
  mkdirSync(dir);
  const schedule: Schedule = {
    seed: 1,
    injections: injections.map((injection) => ({ ...injection, maxWaitMs: GENEROUS_MS })),
    disk: 'any',
    producers: 2,
    depth: 2,
  };
  try {
    const { events, evaluation } = await rerun(
      {
        target: inProcessTarget(place, options.guarantee, options.commands),
        runtime: inProcessRuntime(defect, options.install),
        gate: {
          kind: 'gate',
          runtime: 'process',
          power: 'blocklog',
          filesystem: DEFAULT_FILESYSTEM,
          schedule,
          round: 1,
        },
        registry,
        signal: options.signal ?? new AbortController().signal,
        progress: options.progress ?? (() => {}),
        ...options.timing,
      },
      schedule,
      dir,
    );
    return { events, evaluation, dir, state: place.state };
  } finally {
    registry.close();
  }
}

const KILLS = [
  { fault: 'kill', afterConfirms: 30 },
  { fault: 'kill-one', afterConfirms: 30 },
  { fault: 'kill', afterConfirms: 10 },
];

const countOf = (events: readonly HistoryEvent[], kind: HistoryEvent['kind']) =>
  events.filter((event) => event.kind === kind).length;

t.test('a correct queue passes a round in which every injection hits', async (t) => {
  const { events, evaluation, dir, state } = await runRoundWith(t, '', KILLS);
  t.equal(evaluation.verdict, 'pass', evaluation.why);
  const faults = events.flatMap((event) => (event.kind === 'fault' ? [[event.fault, event.hit]] : []));
  t.same(faults, [
    ['kill', true],
    ['kill-one', true],
    ['kill', true],
  ]);
  t.equal(countOf(events, 'recovered'), KILLS.length);
  t.ok(countOf(events, 'consumed') >= 70, 'at least the confirmations that the injections waited for');
  t.same(
    events.flatMap((event) => (event.kind === 'drained' ? [event.complete] : [])),
    [true],
    'the drain saw every message',
  );
  const executed = JSON.parse(readFileSync(join(dir, 'round-1', 'injections.json'), 'utf8')) as {
    fault: string;
    hit: boolean;
  }[];
  t.match(
    executed,
    KILLS.map(({ fault }) => ({ fault, hit: true })),
  );
  t.same(registeredRuns(state), [], 'nothing is left in the registry');
});

t.test('each defect turns its requirement red', async (t) => {
  const cases: [QueueDefect, string][] = [
    ['confirms-early', 'PP-1'],
    ['resurrects', 'PP-2'],
    ['corrupts', 'PP-4'],
    ['invents', 'PP-6'],
    ['damages-ids', 'PP-4'],
  ];
  for (const [defect, requirement] of cases) {
    const { evaluation } = await runRoundWith(t, defect, KILLS);
    t.equal(evaluation.verdict, 'fail', defect);
    const red = evaluation.findings.flatMap((finding) =>
      finding.verdict === 'fail' ? [finding.requirement] : [],
    );
    t.ok(red.includes(requirement as (typeof red)[number]), `${defect}: ${red.join(' ')}`);
  }
});

t.test('a changed message does not end the round, and both versions of it are saved', async (t) => {
  const { events, evaluation, dir } = await runRoundWith(t, 'corrupts', KILLS);
  t.equal(countOf(events, 'fault'), KILLS.length, 'every fault was tried');
  const verdicts = new Map(evaluation.findings.map(({ requirement, verdict }) => [requirement, verdict]));
  t.equal(verdicts.get('PP-1'), 'pass', 'durability was measured');
  t.equal(verdicts.get('PP-4'), 'fail');
  const [violation] = evaluation.findings.flatMap(({ violations }) => violations);
  t.match(
    violation?.what,
    /; first difference at byte \d+ \(line \d+, column \d+\): submitted "\\n", delivered "\\u000b"$/,
  );
  const saved = join(dir, 'round-1', 'changed');
  const [deliveredFile = ''] = readdirSync(saved).filter((name) => name.includes('.delivered-'));
  const delivered = readFileSync(join(saved, deliveredFile));
  const submitted = readFileSync(join(saved, deliveredFile.replace(/delivered-\d+$/, 'submitted')));
  t.equal(delivered.length, submitted.length);
  t.ok(delivered.subarray(0, -1).equals(submitted.subarray(0, -1)));
  t.notOk(delivered.equals(submitted));
});

t.test('a message with a damaged id is a changed message of the id that the lease names', async (t) => {
  const { evaluation } = await runRoundWith(t, 'damages-ids', KILLS);
  const verdicts = new Map(evaluation.findings.map(({ requirement, verdict }) => [requirement, verdict]));
  t.match([verdicts.get('PP-1'), verdicts.get('PP-4'), verdicts.get('PP-6')], ['pass', 'fail', 'pass']);
});

t.test(
  'a message that the target keeps back is lost, or late when the target still reports it',
  async (t) => {
    const guarantee = { redeliverySeconds: 1 };
    const silent = await runRoundWith(t, 'withholds', KILLS, { guarantee });
    t.match(silent.evaluation.why, /PP-1: \d+ of \d+ confirmed messages were lost/);
    t.match(
      silent.events.find(({ kind }) => kind === 'drained'),
      { complete: true, allowedBy: 'claim' },
    );
    const open = await runRoundWith(t, 'withholds', KILLS, { guarantee, commands: { verify: ['verify'] } });
    t.match(open.evaluation.why, /PP-1: .* were not delivered within [\d.]+ s, .*though still stored/);
    t.notMatch(open.evaluation.why, /lost/);
  },
);

t.test(
  'a nudge makes the target deliver what it keeps back, long before the time that it claims',
  async (t) => {
    const { events, evaluation } = await runRoundWith(t, 'withholds', KILLS, {
      guarantee: { redeliverySeconds: 600 },
      commands: { nudge: ['nudge'] },
    });
    t.equal(evaluation.verdict, 'pass', evaluation.why);
    t.match(
      events.find(({ kind }) => kind === 'drained'),
      { complete: true, allowedMs: 600_000, allowedBy: 'claim' },
    );
  },
);

t.test('a target that does not recover fails PP-10, and no later fault is tried', async (t) => {
  const { events, evaluation } = await runRoundWith(t, 'never-recovers', KILLS, {
    guarantee: { recoverySeconds: 1 },
  });
  t.equal(evaluation.verdict, 'fail');
  t.ok(evaluation.findings.some(({ requirement, verdict }) => requirement === 'PP-10' && verdict === 'fail'));
  t.equal(countOf(events, 'fault'), 1);
  t.match(
    events.find(({ kind }) => kind === 'drained'),
    { complete: false },
    'a target that is down is not asked for messages',
  );
});

t.test('a queue that confirms nothing is not measured', async (t) => {
  const { evaluation } = await runRoundWith(t, 'never-confirms', [{ fault: 'kill', afterConfirms: 0 }]);
  t.equal(evaluation.verdict, 'not-measured', evaluation.why);
});

t.test('an install that fails ends the round with the end of its output', async (t) => {
  const failing = { code: 3, stderr: 'no space\nleft here\n' };
  await t.rejects(runRoundWith(t, '', KILLS, { install: failing }), {
    code: 'target-unavailable',
    message: /install command ended with code 3: no space \| left here/,
  });
  const slow = { code: null, signal: 'SIGKILL', timedOut: true };
  await t.rejects(runRoundWith(t, '', KILLS, { install: slow }), {
    code: 'target-unavailable',
    message: /install command took longer than \d+ ms/,
  });
});

t.test('a target that exits right after every start is unavailable, and not a failed recovery', async (t) => {
  const lines: string[] = [];
  const run = runRoundWith(t, 'exits-at-once', KILLS, { progress: (line) => void lines.push(line) });
  await t.rejects(run, {
    code: 'target-unavailable',
    message:
      /did not get ready .*services\.server exited with code 1 after [\d.]+ s, 5 times; round-1\/logs\/server\.log /,
  });
  t.match(
    lines,
    [/^services\.server exited with code 1 after [\d.]+ s, before it was ready/],
    'reported at once, and only once',
  );
});

t.test(
  'a fault whose usual duration does not fit before the end of the budget is not injected',
  async (t) => {
    const pace = new Pace(0);
    pace.noteInjection('kill-one', 1e9);
    const timing = { pace, lastFaultMs: performance.now() + 1e8 };
    const { events } = await runRoundWith(t, '', KILLS, { timing });
    t.same(
      events.flatMap((event) => (event.kind === 'fault' ? [event.fault] : [])),
      ['kill'],
      'the first fault is always injected',
    );
    t.ok(pace.injectionMs('kill') > 0, 'the round has noted how long it took');
    t.ok(pace.tailMs > 0, 'and how long its end took');
  },
);

t.test('a round divides its whole time into phases', async (t) => {
  const clock = new PhaseClock<RoundPhase>('evaluation');
  await runRoundWith(t, '', KILLS, { timing: { clock } });
  const { phasesMs, tookMs } = clock.report();
  for (const phase of ['set-up', 'workload', 'recoveries', 'drain'])
    t.ok((phasesMs[phase] ?? 0) > 0, `${phase}: ${JSON.stringify(phasesMs)} of ${tookMs}`);
});

t.test('an interrupted round stops the target and says that nothing was drained', async (t) => {
  const interrupt = new AbortController();
  // The report of the first injection interrupts; the second one would wait for ever.
  const injections = [
    { fault: 'kill', afterConfirms: 5 },
    { fault: 'kill', afterConfirms: 1_000_000 },
  ];
  const progress = () => interrupt.abort();
  const { events } = await runRoundWith(t, '', injections, { signal: interrupt.signal, progress });
  t.equal(countOf(events, 'fault'), 1);
  t.match(
    events.find(({ kind }) => kind === 'drained'),
    { complete: false },
  );
  t.match(events.at(-1), { kind: 'run-ended', how: 'interrupted' });
});

t.test('a target whose messages are overdue is not drained while it is down for the next cut', async (t) => {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  process.env.PLUGPULL_STATE = workspace.state;
  const cut = { fault: 'power-cut', afterConfirms: 5, maxWaitMs: GENEROUS_MS } satisfies PlannedInjection;
  const cutInRecovery = { ...cut, inRecovery: 0 };
  const injections = [...Array<PlannedInjection>(7).fill(cut), cutInRecovery, cutInRecovery, cut, cut];
  // The messages become overdue with the eighth cut, after which the target is not started before the ninth.
  let cuts = 0;
  const registry = new Registry(newRunId());
  t.teardown(() => registry.close());
  const recorder = new Recorder(join(workspace.dir, 'history.jsonl'));
  t.teardown(() => recorder.close());
  const { injections: executed, disk } = await runRound({
    target: inProcessTarget(workspace, { faults: ['power-cut'] }),
    protocol: await protocolOf('http'),
    runtime: inProcessRuntime('delivers-late'),
    schedule: { seed: 1, injections, disk: 'power', producers: 2, depth: 1 },
    faults: new Map([['power-cut', powerCut]]),
    power: 'blocklog',
    filesystem: DEFAULT_FILESYSTEM,
    dir: join(workspace.dir, 'round'),
    number: 1,
    recorder,
    receipts: recordReceipts(recorder),
    injectionsBefore: 0,
    registry,
    signal: new AbortController().signal,
    startTimeoutMs: GENEROUS_MS,
    lastFaultMs: Number.POSITIVE_INFINITY,
    nowMs: () => performance.now() + (cuts < 8 ? -GENEROUS_MS : GENEROUS_MS),
    progress: (line) => void (/^power-cut/.test(line) && cuts++),
  });
  disk.remove();
  t.equal(executed, 9, 'the round ends at the first cut after which the target is up again');
  const kinds = recorder.events.map(({ kind }) => kind);
  t.equal(kinds.filter((kind) => kind === 'recovered').length, 7);
  t.ok(kinds.lastIndexOf('drained') > kinds.lastIndexOf('recovered'), 'the drain comes after the recovery');
});

for (const [defect, what] of [
  ['stores-elsewhere', 'a target that writes nothing to {data}'],
  ['stores-elsewhere-and-logs', 'a target that writes only its starts to {data}'],
] as const) {
  t.test(`every power cut of ${what} is a miss with its reason, and PP-12 is not measured`, async (t) => {
    const cuts = Array(4).fill({ fault: 'power-cut', afterConfirms: 8 });
    const { events, evaluation } = await runRoundWith(t, defect, cuts, {
      guarantee: { faults: ['power-cut'] },
    });
    const faults = events.flatMap((event) => (event.kind === 'fault' ? [event] : []));
    t.equal(faults.length, 4);
    for (const { hit, scope, detail } of faults.slice(1)) {
      t.match({ hit, scope }, { hit: false, scope: 'machine' });
      t.match(
        detail,
        /\d+ messages were confirmed and nothing in \{data\} changed: the target keeps its messages elsewhere/,
      );
    }
    const power = evaluation.findings.find(({ requirement }) => requirement === 'PP-12');
    t.match(power, { verdict: 'not-measured', why: /^no power cut hit; .*keeps its messages elsewhere/ });
    t.equal(evaluation.verdict, 'not-measured');
  });
}

t.test('power cuts of a target that writes its messages to {data} hit', async (t) => {
  const cuts = Array(4).fill({ fault: 'power-cut', afterConfirms: 8 });
  const { events, evaluation } = await runRoundWith(t, '', cuts, { guarantee: { faults: ['power-cut'] } });
  const hits = events.filter((event) => event.kind === 'fault' && event.hit).length;
  t.ok(hits >= 3, `${hits} of 4 cuts hit`);
  t.equal(evaluation.verdict, 'pass');
});

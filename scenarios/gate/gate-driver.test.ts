import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { findFault } from '../../faults/catalogue/catalogue.js';
import type { Fault } from '../../faults/fault.js';
import { miss } from '../../faults/injection.js';
import { readRunFacts } from '../bundle/run-facts.js';
import type { ExploreResult } from '../explore/result/result.js';
import { inProcessRuntime, inProcessTarget, type QueueDefect } from '../fixtures/in-process-runtime.js';
import { TestWorkspace } from '../fixtures/kit.js';
import { registeredRuns } from '../host/registry.js';
import { gateReport } from '../report/gate-report.js';
import { plainStyle } from '../report/style.js';
import { makeSchedule } from '../round/schedule.js';
import { runGate, selectAndRunGate } from './gate.js';
import type { GateOptions } from './gate-options.js';
import type { GateResult } from './result.js';
import { selectFaults } from './select-faults.js';

/** Budget that is never used up: the number of rounds ends these gates, not the clock. */
const GENEROUS_MS = 600_000;

function fault(name: string): Fault {
  const known = findFault(name);
  if (known === undefined) throw new Error(`no fault ${name}`);
  return known;
}

/** Runs a gate of `maxRounds` rounds against a queue in this process. */
async function gate(
  t: { teardown(remove: () => void): void },
  defect: QueueDefect,
  maxRounds: number,
  options: Partial<GateOptions> = {},
): Promise<{ result: GateResult; workspace: TestWorkspace; progress: string[] }> {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  process.env.PLUGPULL_STATE = workspace.state;
  const progress: string[] = [];
  const result = await runGate({
    target: inProcessTarget(workspace),
    runtime: inProcessRuntime(defect),
    selection: { faults: [fault('kill'), fault('kill-one')], unavailable: [] },
    power: 'blocklog',
    seed: 7,
    budgetMs: GENEROUS_MS,
    maxRounds,
    out: undefined,
    keep: false,
    replay: (seed) => `plugpull gate --seed ${seed}`,
    signal: new AbortController().signal,
    progress: (line) => void progress.push(line),
    ...options,
  });
  return { result, workspace, progress };
}

t.test('a gate stops after `maxRounds` rounds and removes the evidence of a run that passed', async (t) => {
  const { result, workspace, progress } = await gate(t, '', 2);
  t.match(result, {
    verdict: 'pass',
    rounds: 2,
    lost: 0,
    duplicates: 0,
    evidence: null,
    bundle: null,
    seed: 7,
  });
  t.ok((result.time.phasesMs.drain ?? 0) > 0, 'the result says where the time went');
  t.match(gateReport(result, plainStyle).join('\n'), /Time\n.*drain \d.*\n.* of a budget of 600\.0 s/);
  t.equal(progress.filter((line) => /^round \d/.test(line)).length, 2);
  t.ok(
    result.faults.every(({ hit }) => hit > 0),
    'every fault hit',
  );
  t.ok(result.confirmed > 0);
  t.same(readdirSync(join(workspace.state, 'runs')), []);
  t.same(registeredRuns(workspace.state), []);
});

t.test(
  'a gate stops at the round that fails, saves its evidence, and reports the command that repeats it',
  async (t) => {
    const { result, workspace } = await gate(t, 'confirms-early', 50);
    t.match(result, { verdict: 'fail', replay: `plugpull gate --seed ${result.seed}` });
    t.ok(result.rounds < 50, `${result.rounds} rounds`);
    t.match(
      result.requirements.find(({ id }) => id === 'PP-1'),
      { verdict: 'fail' },
    );
    t.ok(existsSync(result.bundle ?? ''), 'the bundle is saved');
    t.ok(existsSync(join(result.evidence ?? '', 'history.jsonl')), 'the history is saved');
    t.ok(
      existsSync(join(result.evidence ?? '', `round-${result.rounds}`, 'data-at-end')),
      'the data is saved',
    );
    t.ok((result.evidence ?? '').startsWith(workspace.state));
    const report = gateReport(result, plainStyle).join('\n');
    t.match(report, /PP-1 .*confirmed and never delivered/);
    t.match(report, `The story of message ${result.violations[0]?.id}`);
    t.match(report, /^fail: PP-1/m);
    t.match(report, 'run it again: ');
  },
);

t.test('the kept facts of a gate say which runtime and which profile ran', async (t) => {
  const { result } = await gate(t, '', 1, { profile: 'containers', keep: true });
  t.match(result.setup, { runtime: 'process', profile: 'containers' });
  t.match(readRunFacts(result.evidence ?? ''), { runtime: 'process', profile: 'containers' });
});
t.test(
  'a gate that waits for missing messages says so in its state, and the round before that',
  async (t) => {
    let describe = () => '';
    const states: string[] = [];
    const timer = setInterval(() => states.push(describe()), 20);
    t.teardown(() => clearInterval(timer));
    await gate(t, 'confirms-early', 50, {
      watch: (given) => {
        describe = given;
      },
    });
    t.ok(states.some((state) => /^round 1: \d+ confirmed/.test(state)));
    t.ok(
      states.some((state) => /^drain: \d+ confirmed messages are missing, at most \d+ s left/.test(state)),
      [...new Set(states)].slice(-5).join('\n'),
    );
  },
);

t.test('evidence that cannot be written is a warning, and the verdict of the gate stays', async (t) => {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  const out = join(workspace.dir, 'out');
  // A directory in the place of the bundle: its rename fails, as any write does on a full disk.
  mkdirSync(join(out, 'bundle.tar.gz'), { recursive: true });
  const runtime = inProcessRuntime('confirms-early');
  const saveTo = () => {
    throw new Error('no room for the data');
  };
  const { makeDisk: disk } = runtime;
  if (disk === undefined) throw new Error('expected a runtime that makes its disks');
  const warnings: string[] = [];
  const write = process.stderr.write.bind(process.stderr);
  const stderr = t.capture(process.stderr, 'write', (...all: Parameters<typeof write>) => {
    warnings.push(all[0].toString());
    return true;
  });
  const { result } = await gate(t, '', 50, {
    runtime: { ...runtime, makeDisk: async (...all) => ({ ...(await disk(...all)), saveTo }) },
    out,
  }).finally(() => stderr.restore());
  t.match(result, { verdict: 'fail', bundle: null, evidence: out });
  t.match(warnings, [
    /^warning: the data of the failed round .*no room/,
    /^warning: the bundle could not be/,
  ]);
  t.equal(warnings.length, 2);
});

t.test('a gate goes on after a changed message until every fault was tried', async (t) => {
  const faults = [fault('kill'), fault('kill-one'), fault('pause')];
  const { result } = await gate(t, 'corrupts', 50, {
    faultsPerRound: 1,
    selection: { faults, unavailable: [] },
  });
  t.ok(
    result.faults.every(({ tried }) => tried > 0),
    'every fault was tried',
  );
  t.ok(result.rounds > 1 && result.rounds < 50, `${result.rounds} rounds`);
  const verdicts = new Map(result.requirements.map(({ id, verdict }) => [id, verdict]));
  t.match([verdicts.get('PP-1'), verdicts.get('PP-4')], ['pass', 'fail']);
  t.equal(result.seed, 7, 'the first round with a changed message is the one to repeat');
  t.ok(existsSync(join(result.evidence ?? '', 'round-1', 'data-at-end')));
  t.ok(existsSync(join(result.evidence ?? '', 'round-1', 'changed')));
});

t.test('a gate stops after `maxInjections` injections', async (t) => {
  const { result } = await gate(t, '', 100, { maxInjections: 3 });
  t.equal(result.verdict, 'pass');
  t.equal(
    result.faults.reduce((sum, { tried }) => sum + tried, 0),
    3,
  );
});

/** Seed of a schedule whose first fault is the kill, of the kill and the tear. */
const KILL_FIRST_SEED = [1, 2, 3, 4, 5, 6, 7, 8, 9].find((seed) => {
  return makeSchedule(seed, [fault('kill'), fault('tear')], 2).injections[0]?.fault === 'kill';
});
const MISSED: Fault = { ...fault('tear'), inject: async () => miss('nothing was unsynced at 3 moments') };
const unavailableClock = {
  name: 'clock',
  availability: { available: false as const, why: 'libfaketime is not installed', remedy: 'install it' },
};
for (const [what, selection, why] of [
  [
    'missed every time',
    { faults: [fault('kill'), MISSED], unavailable: [], wanted: ['kill', 'tear'] },
    /^named with --faults and never hit: tear, 0 hits in \d+ injections?: nothing was unsynced at 3 moments$/,
  ],
  [
    'is unavailable',
    { faults: [fault('kill')], unavailable: [unavailableClock], wanted: ['kill', 'clock'] },
    /^named with --faults and never hit: clock, not available: libfaketime is not installed \(install it\)$/,
  ],
  [
    'was never tried',
    { faults: [fault('kill'), MISSED], unavailable: [], wanted: ['kill', 'tear'] },
    /^named with --faults and never hit: tear, not tried before the run ended$/,
  ],
] as const) {
  t.test(`a pass is not measured when a fault that the user asked for ${what}`, async (t) => {
    const workspace = new TestWorkspace();
    t.teardown(() => workspace.remove());
    const target = inProcessTarget(workspace, { faults: ['kill', 'tear', 'clock'] });
    // With one injection, the seed decides which of the two faults is tried.
    const limits = what === 'was never tried' ? { maxInjections: 1, seed: KILL_FIRST_SEED ?? 0 } : {};
    const selected = {
      faults: [...selection.faults],
      unavailable: [...selection.unavailable],
      wanted: selection.wanted,
    };
    const { result } = await gate(t, '', 2, { target, selection: selected, faultsPerRound: 2, ...limits });
    t.match(result, { verdict: 'not-measured', why });
    t.equal(result.claimedHits.hit, result.faults.filter(({ hit }) => hit > 0).length);
    t.ok(result.claimedHits.claimed > result.claimedHits.hit);
    t.match(
      gateReport(result, plainStyle).at(-1),
      /^\d of \d claimed faults hit; named with --faults and never hit: (tear|clock)$/,
    );
  });
}

t.test('a fault that missed does not change the verdict of a gate without --faults', async (t) => {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  const target = inProcessTarget(workspace, { faults: ['kill', 'tear'] });
  const selection = { faults: [fault('kill'), MISSED], unavailable: [] };
  const { result } = await gate(t, '', 2, { target, selection, faultsPerRound: 2 });
  t.equal(result.verdict, 'pass');
  t.same(result.claimedHits, { claimed: 5, hit: 1, neverHit: [] });
  t.equal(gateReport(result, plainStyle).at(-1), '1 of 5 claimed faults hit');
});

t.test('a fault that has not hit is tried again before others are repeated', async (t) => {
  const misses = 6;
  const injected: string[] = [];
  const noted = (known: Fault): Fault => ({
    ...known,
    inject: (context) => {
      injected.push(known.name);
      return known.inject(context);
    },
  });
  const pause = fault('pause');
  const late: Fault = {
    ...pause,
    inject: async (context) => {
      injected.push('pause');
      return injected.filter((name) => name === 'pause').length <= misses
        ? miss('not yet')
        : pause.inject(context);
    },
  };
  const replays: (readonly string[] | undefined)[] = [];
  const { result, progress } = await gate(t, '', 6, {
    selection: { faults: [noted(fault('kill')), late], unavailable: [] },
    replay: (_seed, only) => {
      replays.push(only);
      return '';
    },
  });
  t.equal(result.verdict, 'pass');
  t.ok((result.faults.find(({ name }) => name === 'pause')?.hit ?? 0) > 0, injected.join(' '));
  const alone = progress.filter((line) =>
    /^round \d+, seed \d+: (pause, )*pause \(catch-up round: not measured yet\)$/.test(line),
  );
  t.ok(alone.length > 0, progress.join('\n'));
  t.same(replays, [undefined], 'a gate that passed is repeated with all its faults');
});

t.test('the replay line of a round that tried only some faults names them', async (t) => {
  let kills = 0;
  const late: Fault = {
    ...fault('kill'),
    // It misses in the first rounds, so that it has a round of its own. Only then it kills.
    inject: (context) => (++kills <= 6 ? Promise.resolve(miss('not yet')) : fault('kill').inject(context)),
  };
  let replayed: readonly string[] | undefined;
  const { result } = await gate(t, 'confirms-early', 12, {
    selection: { faults: [fault('pause'), late], unavailable: [] },
    replay: (_seed, only) => {
      replayed = only;
      return '';
    },
  });
  t.equal(result.verdict, 'fail', result.why);
  t.same(replayed, ['kill']);
});

t.test('a gate is not measured when no fault is available', async (t) => {
  const why = 'it needs a device';
  const selection = {
    faults: [],
    unavailable: [{ name: 'power-cut', availability: { available: false as const, why, remedy: 'get one' } }],
  };
  await t.rejects(gate(t, '', 1, { selection }), {
    code: 'target-unavailable',
    message: 'no fault can be tried: power-cut: it needs a device (get one)',
  });
});

t.test('an interrupted gate removes its evidence and closes its runtime', async (t) => {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  process.env.PLUGPULL_STATE = workspace.state;
  const interrupt = new AbortController();
  let closed = 0;
  const result = await selectAndRunGate({
    target: inProcessTarget(workspace),
    runtime: { ...inProcessRuntime(), close: async () => void closed++ },
    wanted: ['kill'],
    power: 'blocklog',
    seed: 1,
    budgetMs: GENEROUS_MS,
    out: undefined,
    keep: false,
    replay: () => '',
    signal: interrupt.signal,
    // The first line reports the start of the first round.
    progress: () => interrupt.abort(),
  }).catch((error: unknown) => error);
  t.ok(result !== undefined);
  t.equal(closed, 1);
  t.same(readdirSync(join(workspace.state, 'runs')), []);
  t.same(registeredRuns(workspace.state), []);
});

t.test('a runtime is closed although the one of power cuts cannot be closed', async (t) => {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  process.env.PLUGPULL_STATE = workspace.state;
  const interrupt = new AbortController();
  let closed = 0;
  const broken = async () => {
    throw new Error('the VM hangs');
  };
  const gateOfTwo = selectAndRunGate({
    target: inProcessTarget(workspace),
    runtime: { ...inProcessRuntime(), close: async () => void closed++ },
    powerRuntime: { ...inProcessRuntime(), close: broken },
    wanted: ['kill'],
    power: 'blocklog',
    seed: 2,
    budgetMs: GENEROUS_MS,
    maxRounds: 1,
    out: undefined,
    keep: false,
    replay: () => '',
    signal: interrupt.signal,
    // The first line reports the start of the first round.
    progress: () => interrupt.abort(),
  });
  await t.rejects(gateOfTwo, { message: 'the VM hangs' });
  t.equal(closed, 1);
});

t.test('only faults that the target claims to survive are selected', async (t) => {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  const target = inProcessTarget(workspace, { faults: ['kill', 'clock'] });
  const everything = { supports: () => ({ available: true as const }) };
  const names = async (wanted?: string[]) =>
    (await selectFaults(target, wanted, everything)).faults.map(({ name }) => name);
  t.ok((await names()).includes('kill-one'));
  t.same(await names(['kill-one:server']), ['kill-one:server']);
  await t.rejects(names(['no-such-fault']), {
    code: 'bad-usage',
    message: /no such fault, expected one of kill, /,
  });
  await t.rejects(names(['kill-one:other']), {
    code: 'bad-usage',
    message: /no such service, expected one of server/,
  });
  await t.rejects(names(['tear']), { code: 'bad-usage', message: /does not claim to survive it/ });
  const nothing = { supports: () => ({ available: false as const, why: 'not here', remedy: 'elsewhere' }) };
  const { faults, unavailable } = await selectFaults(target, undefined, nothing);
  t.same(faults, []);
  t.ok(unavailable.every(({ availability }) => availability.why === 'not here'));
});

/** An exploration that takes no time and passes. */
const EXPLORATION: NonNullable<GateOptions['exploration']> = {
  budgetMs: 1000,
  run: async ({ out }) =>
    ({
      ...{
        verdict: 'pass',
        why: 'nothing is lost',
        states: 40,
        distinct: 30,
        statesPerSecond: 3,
        atRisk: 20,
      },
      ...{ broken: 0, lost: 0, tookMs: 9, replay: 'plugpull explore', evidence: out, bundle: null },
      ...{ violations: [], warnings: [], smallest: null },
    }) as unknown as ExploreResult,
};

t.test('a result names no evidence of an exploration that was removed with the rest', async (t) => {
  const { result } = await gate(t, '', 1, { exploration: EXPLORATION });
  t.match(result, { verdict: 'pass', evidence: null, crashStates: { verdict: 'pass', evidence: null } });
  const { result: kept } = await gate(t, '', 1, { exploration: EXPLORATION, keep: true });
  t.match(kept.crashStates?.evidence, kept.evidence ?? 'evidence');
});

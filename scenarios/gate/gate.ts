import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { evaluate } from '../../conformance/checkers/evaluate.js';
import { KitError } from '../../conformance/errors.js';
import { HISTORY_FORMAT } from '../../conformance/history/events.js';
import { Recorder } from '../../conformance/history/recorder.js';
import { FAULTS } from '../../faults/catalogue/catalogue.js';
import type { Fault } from '../../faults/fault.js';
import { removeTree } from '../../faults/files/remove-tree.js';
import { DEFAULT_FILESYSTEM } from '../../faults/power/filesystem.js';
import type { FileHabit } from '../../faults/tracing/file-habits.js';
import { processPendingEvents } from '../../faults/waiting.js';
import { EXPLORATION_FOLDER } from '../bundle/run-facts.js';
import { attempt } from '../host/attempt.js';
import { PhaseClock } from '../host/phase-clock.js';
import { newRunId, Registry, stateDirectory } from '../host/registry.js';
import { removeOrReport } from '../host/removal.js';
import { kitVersion } from '../host/version.js';
import type { RoundPhase } from '../round/phases.js';
import { traceFiles } from '../round/trace-files.js';
import { faultsEnabledBy } from '../runtime/power-backends.js';

import { exploreInGate, planExploration } from './crash-states.js';
import { explainLosses } from './explain-losses.js';
import { keepGateFacts, writeGateBundle } from './gate-bundle.js';
import type { GateOptions } from './gate-options.js';
import { withMeasurableClaims } from './measurable-claims.js';
import { type GateResult, resultOf } from './result.js';
import { runRounds } from './rounds.js';
import { selectFaults } from './select-faults.js';
import { describeExploration, describeRounds } from './status.js';

/** Name of the bundle in the evidence directory. */
const BUNDLE_NAME = 'bundle.tar.gz';

/**
 * Runs rounds of workload and faults until the budget is used up, `maxRounds` rounds or `maxInjections` injections are done, or a
 * requirement has failed. If only the content of messages was wrong (PP-4, PP-5), it goes on until every fault was tried.
 * The seeds of the rounds are ascending numbers that begin with `seed`, so that a gate with the seed of a failed round runs
 * that round first.
 * If nothing has failed then, crash states are explored in the time that is kept for it.
 * @throws KitError target-unavailable when the target cannot be started, or when no fault is available.
 */
export async function runGate(requested: GateOptions): Promise<GateResult> {
  const { selection, seed } = requested;
  const target = [requested.powerRuntime ?? requested.runtime, requested.runtime].reduce(
    withMeasurableClaims,
    requested.target,
  );
  if (selection.faults.length === 0) {
    const reasons = selection.unavailable
      .map(({ name, availability }) => `${name}: ${availability.why} (${availability.remedy})`)
      .join('; ');
    throw new KitError('target-unavailable', `no fault can be tried: ${reasons}`);
  }
  const registry = new Registry(newRunId(), stateDirectory(), requested.out);
  const dir = requested.out ?? join(stateDirectory(), 'runs', registry.runId);
  if (requested.out === undefined) registry.made({ kind: 'directory', path: dir });
  mkdirSync(dir, { recursive: true });
  const recorder = new Recorder(join(dir, 'history.jsonl'));
  const options = {
    ...requested,
    target,
    signal: AbortSignal.any([requested.signal, recorder.failureSignal]),
  };
  const startMs = performance.now();
  const clock = new PhaseClock<RoundPhase>('evaluation', requested.budgetMs);
  recorder.record({
    kind: 'run-started',
    format: HISTORY_FORMAT,
    target: target.name,
    protocol: target.protocol,
    seed,
    faults: selection.faults.map(({ name }) => name),
    startedAt: new Date().toISOString(),
    kitVersion: kitVersion(),
  });
  let keep = true;
  /** Explores crash states in what is left of the budget. A failed gate ends at once. */
  const exploreUnlessFailed = async (hasFailed: boolean) => {
    const { exploration, unexplored, runtime, signal, progress } = options;
    if (exploration === undefined) return { unexplored: unexplored ?? 'no fault of a round makes them' };
    if (hasFailed || signal.aborted) return { unexplored: 'the gate ended before' };
    const endMs = startMs + options.budgetMs;
    const beganMs = performance.now();
    options.watch?.(() => describeExploration(beganMs, Math.max(endMs, beganMs + exploration.budgetMs)));
    return exploreInGate(exploration, {
      ...{ target, runtime, seed, signal, progress },
      leftMs: endMs - beganMs,
      out: join(dir, EXPLORATION_FOLDER),
    });
  };
  try {
    const endMs = startMs + options.budgetMs;
    const exploreMs = options.exploration?.budgetMs ?? 0;
    const describe = describeRounds(recorder.events, endMs - exploreMs);
    let waiting: string | undefined;
    options.watch?.(() => waiting ?? describe());
    const { rounds, failed, writtenOutside, escaped } = await runRounds(options, {
      ...{ registry, recorder, dir, startMs, clock, budgetMs: options.budgetMs - exploreMs },
      waiting: (state) => {
        waiting = state;
      },
    });
    const explored = await clock.during('exploration', () => exploreUnlessFailed(failed !== undefined));
    const how = options.signal.aborted ? 'interrupted' : failed ? 'violation' : 'completed';
    recorder.record({ kind: 'run-ended', how });
    const evaluation = evaluate(recorder.events, target);
    const isBroken = 'verdict' in explored && explored.verdict === 'fail';
    keep = options.keep || options.out !== undefined || evaluation.verdict === 'fail' || isBroken;
    const isFailed = evaluation.verdict === 'fail';
    // Its evidence is a part of that of the gate, and is removed with it.
    const shown = keep || !('verdict' in explored) ? explored : { ...explored, evidence: null };
    const reportedSeed = isFailed && failed !== undefined ? failed.schedule.seed : seed;
    const habits =
      isFailed &&
      how !== 'interrupted' &&
      target.nodes === undefined &&
      explainLosses(recorder.events, evaluation, []).length > 0
        ? ((await attempt('no trace of the lost files', () =>
            learnHabits(options, registry, reportedSeed, dir),
          )) ?? [])
        : [];
    // Close the file first: the bundle must contain the whole history. A violation that is proven stays one when the end
    // of the history cannot be written.
    if (isFailed) await attempt('the history is not complete', () => recorder.close());
    else recorder.close();
    const result = resultOf(
      {
        target,
        selection,
        runtime: options.runtime.name,
        powerRuntime: options.powerRuntime?.name,
        profile: options.profile,
        claimsDropped: target !== requested.target,
        power: options.power,
        events: recorder.events,
        rounds,
        time: clock.report(),
        writtenOutside,
        escaped,
        seed: reportedSeed,
        replay: options.replay(reportedSeed, isFailed ? failed?.only : undefined),
        evidence: keep ? dir : null,
        bundle: null,
        habits,
        explored: shown,
      },
      evaluation,
    );
    // Before the bundle, which contains them.
    if (keep)
      await attempt('the facts of the run are not kept', () =>
        keepGateFacts(dir, 'gate', { target, selection }, result),
      );
    const bundle =
      isFailed && failed !== undefined && how !== 'interrupted'
        ? ((await attempt('the bundle could not be written', () =>
            writeGateBundle(
              {
                target,
                ...failed,
                filesystem: options.filesystem ?? DEFAULT_FILESYSTEM,
                evidence: dir,
                events: recorder.events,
                evaluation,
                habits,
              },
              join(dir, BUNDLE_NAME),
            ),
          )) ?? null)
        : null;
    const time = clock.report();
    return { ...result, bundle: bundle ?? result.bundle, time, tookMs: time.tookMs };
  } catch (error) {
    // A Ctrl-C may be the cause of the error. Let its handler run first, so that `finally` removes the
    // evidence.
    await processPendingEvents();
    throw error;
  } finally {
    if (!keep || options.signal.aborted) await removeOrReport(() => removeTree(dir), options.progress);
    registry.close();
    recorder.close();
  }
}

/** Runs the target once under strace to learn which service writes which files, and saves the result as evidence. */
async function learnHabits(
  { target, runtime, signal, progress }: GateOptions,
  registry: Registry,
  seed: number,
  dir: string,
): Promise<FileHabit[]> {
  progress('the target runs once more under strace, to see which service writes and syncs the lost files');
  const habits = await traceFiles({ target, runtime, registry, seed, dir: join(dir, 'trace'), signal });
  writeFileSync(join(dir, 'file-habits.json'), `${JSON.stringify(habits, undefined, 2)}\n`);
  return habits;
}

/** Options of a gate that selects its faults itself: those that the target claims, limited to `wanted`. */
type UnselectedGateOptions = Omit<GateOptions, 'selection' | 'exploration' | 'unexplored'> & {
  wanted: readonly string[] | undefined;
  /**
   * Returns the command line that repeats an exploration of crash states. Undefined: the gate explores none.
   */
  replayExploration?(seed: number, budgetMs: number): string;
};

/** Selects the faults, runs the gate, and closes its runtimes. */
export async function selectAndRunGate({
  wanted,
  replayExploration,
  ...options
}: UnselectedGateOptions): Promise<GateResult> {
  const { target, runtime, powerRuntime, power } = options;
  try {
    const runtimeOf = ({ needs }: Fault) => (needs.disk === 'power' && powerRuntime) || runtime;
    const selection = await selectFaults(target, wanted, {
      supports: (fault) => runtimeOf(fault).supports(fault),
      enabledFaults:
        powerRuntime === undefined ? (runtime.enabledFaults ?? faultsEnabledBy(power)) : POWER_FAULTS,
    });
    const plan =
      replayExploration === undefined
        ? {}
        : planExploration({ ...options, wanted, replay: replayExploration });
    return await runGate({ ...options, ...plan, selection });
  } finally {
    try {
      await powerRuntime?.close?.();
    } finally {
      await runtime.close?.();
    }
  }
}

/** Names of the faults that a separate runtime of power cuts makes possible. */
const POWER_FAULTS: ReadonlySet<string> = new Set(
  FAULTS.filter(({ needs }) => needs.disk === 'power').map(({ name }) => name),
);

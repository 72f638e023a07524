import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { type Evaluation, evaluate } from '../../conformance/checkers/evaluate.js';
import { KitError } from '../../conformance/errors.js';
import { HISTORY_FORMAT, type HistoryEvent } from '../../conformance/history/events.js';
import { Recorder } from '../../conformance/history/recorder.js';
import { recordReceipts } from '../../conformance/protocols/receipts.js';
import { protocolOf } from '../../conformance/protocols/registry/registry.js';
import type { Target } from '../../conformance/target-file/definition.js';
import { findFault } from '../../faults/catalogue/catalogue.js';
import { syscallPointFaults } from '../../faults/catalogue/syscall-point.js';
import type { Fault } from '../../faults/fault.js';
import { removeTree } from '../../faults/files/remove-tree.js';
import type { GateCase } from '../bundle/manifest.js';
import type { PhaseClock } from '../host/phase-clock.js';
import type { Registry } from '../host/registry.js';
import { removeOrReport } from '../host/removal.js';
import { kitVersion } from '../host/version.js';
import { escapeWarnings } from '../round/escape-warnings.js';
import type { Pace } from '../round/pace.js';
import type { RoundPhase } from '../round/phases.js';
import { runRound } from '../round/round.js';
import { saveData } from '../round/saved-data.js';
import type { Schedule } from '../round/schedule.js';
import type { PreparedRuntime } from '../runtime/runtime.js';

export interface RerunOptions {
  target: Target;
  runtime: PreparedRuntime;
  gate: GateCase;
  /** Faults by name, instead of the catalogue's faults that the schedule names. */
  faults?: ReadonlyMap<string, Fault>;
  /** See `RoundOptions`. */
  lastFaultMs?: number;
  clock?: PhaseClock<RoundPhase>;
  pace?: Pace;
  /** Upper bound of the first start of the target. Default: that of the runtime. */
  startTimeoutMs?: number;
  registry: Registry;
  signal: AbortSignal;
  progress(line: string): void;
}

/** One repeated run of a round. */
export interface Rerun {
  /** Directory with history, schedule, logs and data. `drop` removes it. */
  dir: string;
  events: readonly HistoryEvent[];
  evaluation: Evaluation;
  drop(): void;
}

const START_TIMEOUT_MS = 30_000;

/**
 * Runs a schedule once, beginning with the install of the target. When it throws, `dir` stays with the logs of the
 * target, if it has any.
 * @param dir an empty directory for the evidence of this run alone.
 * @throws KitError target-unavailable when a fault of the schedule is unavailable here, or when the target
 *   does not start; bad-bundle when this kit does not make a fault of the schedule.
 */
export async function rerun(options: RerunOptions, schedule: Schedule, dir: string): Promise<Rerun> {
  const { target, runtime, gate, registry } = options;
  const faults = options.faults ?? (await faultsOf(schedule, runtime));
  const recorder = new Recorder(join(dir, 'history.jsonl'));
  const signal = AbortSignal.any([options.signal, recorder.failureSignal]);
  const drop = () => removeTree(dir);
  try {
    recorder.record({
      kind: 'run-started',
      format: HISTORY_FORMAT,
      target: target.name,
      protocol: target.protocol,
      seed: schedule.seed,
      faults: [...faults.keys()],
      startedAt: new Date().toISOString(),
      kitVersion: kitVersion(),
    });
    const outcome = await runRound({
      target,
      protocol: await protocolOf(target.protocol),
      runtime,
      schedule,
      faults,
      power: gate.power,
      filesystem: gate.filesystem,
      dir: join(dir, `round-${gate.round}`),
      number: gate.round,
      recorder,
      receipts: recordReceipts(recorder),
      injectionsBefore: 0,
      registry,
      signal,
      startTimeoutMs: Math.min(
        runtime.slowStartMs ?? START_TIMEOUT_MS,
        options.startTimeoutMs ?? Number.POSITIVE_INFINITY,
      ),
      lastFaultMs: options.lastFaultMs ?? Number.POSITIVE_INFINITY,
      ...(options.clock === undefined ? {} : { clock: options.clock }),
      ...(options.pace === undefined ? {} : { pace: options.pace }),
      progress: options.progress,
    });
    recorder.record({ kind: 'run-ended', how: signal.aborted ? 'interrupted' : 'completed' });
    // Each rerun of a target leaves the same processes: one warning is enough.
    for (const warning of escapeWarnings(target.name, outcome.escaped)) {
      if (!shownWarnings.has(warning)) options.progress(`warning: ${warning}`);
      shownWarnings.add(warning);
    }
    const evaluation = evaluate(recorder.events, target);
    if (evaluation.verdict === 'fail')
      await saveData(outcome.disk, join(dir, `round-${gate.round}`, 'data-at-end'));
    else await removeOrReport(() => outcome.disk.remove(), options.progress);
    options.pace?.noteTail(performance.now() - outcome.faultsEndedMs);
    return { dir, events: recorder.events, evaluation, drop };
  } catch (error) {
    // The error may name the logs of the target. Remove them only when the user has interrupted the run.
    const hasLogs = existsSync(join(dir, `round-${gate.round}`, 'logs'));
    if (options.signal.aborted || !hasLogs) drop();
    throw error;
  } finally {
    recorder.close();
  }
}

/** Warnings that this process has shown already. */
const shownWarnings = new Set<string>();

async function faultsOf({ injections }: Schedule, runtime: PreparedRuntime): Promise<Map<string, Fault>> {
  const faults = new Map<string, Fault>();
  const points = injections.flatMap(({ point }) => (point === undefined ? [] : [point]));
  const atPoints = syscallPointFaults(points);
  for (const name of new Set(injections.map(({ fault }) => fault))) {
    const fault = findFault(name);
    if (fault === undefined)
      throw new KitError(
        'bad-bundle',
        `the bundle's schedule has the fault ${name}, which this kit does not make`,
      );
    const supported = runtime.supports(fault);
    const availability =
      supported.available && runtime.enabledFaults?.has(name) !== true ? await fault.available() : supported;
    if (!availability.available)
      throw new KitError('target-unavailable', `${name}: ${availability.why}; ${availability.remedy}`);
    faults.set(name, (points.length > 0 && atPoints.get(name)) || fault);
  }
  return faults;
}

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { KitError } from '../../conformance/errors.js';
import type { Target } from '../../conformance/target-file/definition.js';
import { faultNameOf, syscallPointFaults } from '../../faults/catalogue/syscall-point.js';
import type { Fault } from '../../faults/fault.js';
import { removeTree } from '../../faults/files/remove-tree.js';
import { hit, miss } from '../../faults/injection.js';
import { DEFAULT_FILESYSTEM } from '../../faults/power/filesystem.js';
import { straceAvailability } from '../../faults/programs.js';
import { type CallCount, enumerateCalls } from '../../faults/tracing/count-calls.js';
import type { GateCase } from '../bundle/manifest.js';
import { keepGateFacts, writeGateBundle } from '../gate/gate-bundle.js';
import { type GateResult, resultOf } from '../gate/result.js';
import { attempt } from '../host/attempt.js';
import { makeUniqueDirectory } from '../host/directories.js';
import { PhaseClock } from '../host/phase-clock.js';
import type { Registry } from '../host/registry.js';
import { type Rerun, type RerunOptions, rerun } from '../replay/rerun.js';
import { Pace } from '../round/pace.js';
import type { RoundPhase } from '../round/phases.js';
import type { Schedule } from '../round/schedule.js';
import { requireSingleNode } from '../round/single-node.js';
import type { PreparedRuntime } from '../runtime/runtime.js';
import { injectionOf, planPoints, planRows, type SweepRow } from './plan.js';

export interface SweepOptions {
  target: Target;
  runtime: PreparedRuntime;
  /** Faults to inject: `kill-syscall`, `io-error`, or both. */
  faults: readonly Fault[];
  seed: number;
  budgetMs: number;
  /** Upper bound of the system calls tried of each kind, service and error; undefined: all. */
  maxPerRow?: number;
  /** Upper bound of the system calls tried in total; undefined: all. */
  maxCalls?: number;
  /**
   * An empty directory for the evidence. The directory is removed when nothing failed, unless `keep` is set.
   */
  dir: string;
  keep: boolean;
  registry: Registry;
  replay: string;
  signal: AbortSignal;
  progress(line: string): void;
}

/** Result of a sweep: the result of a gate, and how many system calls of each service were tried. */
export interface SweepResult extends GateResult {
  sweep: SweepRow[];
}

/** Number of confirmations after the start with which the enumeration of system calls ends. */
const ENUMERATION_CONFIRMS = 20;
/** Upper bound of the wait for ENUMERATION_CONFIRMS confirmations. */
const ENUMERATION_MS = 8000;
/** Time that the drain and the stop are assumed to take until the enumeration has shown it. */
const TYPICAL_TAIL_MS = 8000;
/**
 * Lower bound of the time that is left for the drain and the stop: the enumeration has fewer messages than the sweep.
 */
const MIN_TAIL_MS = 2500;

/**
 * Enumerates the system calls of every service from its start to some confirmations. Then kills the service
 * at each of them, or makes each of them fail. When the time is too short for all calls, the tried calls are
 * evenly spread.
 * @throws KitError target-unavailable when strace is missing, or when no system call could be enumerated.
 */
export async function runSweep(options: SweepOptions): Promise<SweepResult> {
  requireSingleNode(options.target, 'sweep');
  const { target, seed, dir, signal, progress, budgetMs, faults } = options;
  const startMs = performance.now();
  const clock = new PhaseClock<RoundPhase>('evaluation', budgetMs);
  const pace = new Pace(TYPICAL_TAIL_MS);
  const strace = straceAvailability();
  if (!strace.available) throw new KitError('target-unavailable', `${strace.why}; ${strace.remedy}`);
  mkdirSync(dir, { recursive: true });
  const schedule = { seed, injections: [], disk: 'any', producers: 4, depth: 2 } satisfies Schedule;
  const faultNames = new Set(faults.map(({ name }) => name));
  const counts = await enumerate(options, schedule, { clock, pace });
  const rows = planRows(counts).filter((row) => faultNames.has(faultNameOf({ ...row, nth: 1 })));
  const points = planPoints(rows, options.maxPerRow).slice(0, options.maxCalls);
  if (points.length === 0)
    throw new KitError('target-unavailable', 'no system call was seen that could be swept');
  progress(`${points.length} system calls to try, of ${Object.keys(target.services).join(', ')}`);
  const swept = { ...schedule, injections: points.map(injectionOf) };
  const run = await rerun(
    {
      ...rerunOptions(options, swept),
      faults: syscallPointFaults(points, (point, hit) => {
        const row = rows.find(
          ({ service, kind, what }) =>
            service === point.service && kind === point.kind && what === point.what,
        );
        if (row === undefined) return;
        row.tried++;
        if (hit) row.hit++;
      }),
      lastFaultMs: startMs + budgetMs - Math.max(MIN_TAIL_MS, pace.tailMs),
      clock,
      pace,
    },
    swept,
    dir,
  );
  if (signal.aborted) throw new KitError('target-unavailable', 'interrupted');
  return { ...(await resultFor(options, swept, run, clock)), sweep: rows };
}

/** Runs every service once under strace, and counts its system calls. */
async function enumerate(
  options: SweepOptions,
  schedule: Schedule,
  timing: Pick<RerunOptions, 'clock' | 'pace'>,
): Promise<CallCount[]> {
  let counts: CallCount[] = [];
  const countingFault: Fault = {
    name: 'kill-syscall',
    family: 'kill',
    summary: 'counts the system calls of all services, then kills them',
    needs: { target: 'up', disk: 'any' },
    available: async () => straceAvailability(),
    async inject(context) {
      counts = await enumerateCalls(context, ENUMERATION_CONFIRMS, ENUMERATION_MS);
      const names = context.services.map(({ name }) => name);
      const what = `${counts.length} kinds of system calls enumerated, SIGKILL to all`;
      return counts.length > 0 ? hit(what, 'all-processes', names) : miss(what, names);
    },
    heal: async () => {},
  };
  const dir = makeUniqueDirectory(options.dir, 'enumeration-');
  const countingSchedule = {
    ...schedule,
    injections: [{ fault: countingFault.name, afterConfirms: 1, maxWaitMs: 500 }],
  };
  await rerun(
    {
      ...rerunOptions(options, countingSchedule),
      ...timing,
      faults: new Map([[countingFault.name, countingFault]]),
    },
    countingSchedule,
    dir,
  );
  removeTree(dir);
  return counts;
}

function rerunOptions(
  { target, runtime, registry, signal, progress }: SweepOptions,
  schedule: Schedule,
): RerunOptions {
  return { target, runtime, gate: gateCaseOf(runtime, schedule), registry, signal, progress };
}

function gateCaseOf({ name: runtime }: PreparedRuntime, schedule: Schedule): GateCase {
  return { kind: 'gate', runtime, power: 'blocklog', filesystem: DEFAULT_FILESYSTEM, schedule, round: 1 };
}

async function resultFor(
  { target, faults, seed, dir, keep, runtime, replay }: SweepOptions,
  schedule: Schedule,
  { events, evaluation }: Rerun,
  clock: PhaseClock<RoundPhase>,
): Promise<GateResult> {
  const failed = evaluation.verdict === 'fail';
  const facts = { ...gateCaseOf(runtime, schedule), target, schedule, evidence: dir, events, evaluation };
  const evidence = failed || keep ? dir : null;
  const selection = { faults: [...faults], unavailable: [] };
  const result = resultOf(
    {
      ...{ target, selection, events, seed, replay, evidence },
      power: 'blocklog',
      rounds: 1,
      time: clock.report(),
      bundle: null,
    },
    evaluation,
  );
  if (evidence !== null)
    await attempt('the facts of the run are not kept', () =>
      keepGateFacts(dir, 'sweep', { target, selection }, result),
    );
  const bundle = failed
    ? ((await attempt('the bundle could not be written', () =>
        writeGateBundle(facts, join(dir, 'bundle.tar.gz')),
      )) ?? null)
    : null;
  if (evidence === null) removeTree(dir);
  return { ...result, bundle };
}

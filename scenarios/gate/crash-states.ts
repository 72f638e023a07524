import type { Evaluation } from '../../conformance/checkers/evaluate.js';
import type { Finding } from '../../conformance/checkers/verdict.js';
import { KitError } from '../../conformance/errors.js';
import type { Target } from '../../conformance/target-file/definition.js';
import { blocklogAvailability } from '../../faults/power/blocklog-availability.js';
import { DEFAULT_FILESYSTEM, type Filesystem } from '../../faults/power/filesystem.js';
import { runExplore } from '../explore/explore.js';
import type { ExploreResult } from '../explore/result/result.js';
import type { ExploreOptions } from '../explore/strategies/exploration.js';
import { commandLine } from '../host/command-line.js';
import type { PreparedRuntime } from '../runtime/runtime.js';

/** Requirement that an exploration of crash states measures. */
const EXPLORED_REQUIREMENT = 'PP-13';
/** Shortest budget of a gate that explores crash states: a shorter one is needed for the faults. */
const MIN_GATE_BUDGET_MS = 60_000;
/** Share of the budget of a gate that its exploration gets. */
const BUDGET_SHARE = 1 / 6;
/** Limits of the time of an exploration in a gate. */
export const MIN_EXPLORATION_MS = 12_000;
const MAX_EXPLORATION_MS = 120_000;
/** The same for a cluster, which needs seconds for each state. */
const MIN_CLUSTER_GATE_BUDGET_MS = 180_000;
const MIN_CLUSTER_EXPLORATION_MS = 60_000;

/** Returns the shortest budget of a gate that explores crash states of a target, and the shortest time that it gives them. */
export function explorationMinimum({ nodes }: Pick<Target, 'nodes'>): {
  gateBudgetMs: number;
  explorationMs: number;
} {
  return nodes === undefined
    ? { gateBudgetMs: MIN_GATE_BUDGET_MS, explorationMs: MIN_EXPLORATION_MS }
    : { gateBudgetMs: MIN_CLUSTER_GATE_BUDGET_MS, explorationMs: MIN_CLUSTER_EXPLORATION_MS };
}

/** The exploration of crash states in a gate. */
export interface GateExploration {
  /** Part of the gate's budget that is kept for it. */
  budgetMs: number;
  run(
    request: Pick<ExploreOptions, 'target' | 'runtime' | 'seed' | 'budgetMs' | 'out' | 'signal' | 'progress'>,
  ): Promise<ExploreResult>;
}

/** What the exploration in a gate has found. */
export type CrashStatesSummary = Pick<
  ExploreResult,
  | 'verdict'
  | 'why'
  | 'states'
  | 'distinct'
  | 'statesPerSecond'
  | 'atRisk'
  | 'broken'
  | 'lost'
  | 'tookMs'
  | 'replay'
  | 'evidence'
  | 'bundle'
  | 'violations'
  | 'warnings'
> & {
  /** Lines that explain the smallest broken state; empty after a pass. */
  story: string[];
};

/** What decides whether a gate explores crash states. */
export interface ExplorationRequest {
  target: Pick<Target, 'guarantee' | 'nodes'>;
  runtime: Pick<PreparedRuntime, 'name'>;
  filesystem?: Filesystem;
  budgetMs: number;
  /** Names of the faults that the user asked for. */
  wanted: readonly string[] | undefined;
  /** Limits of the number of rounds or injections; undefined: the budget alone decides. */
  maxRounds?: number;
  maxInjections?: number;
  /** Returns the command line that repeats an exploration of this duration. */
  replay(seed: number, budgetMs: number): string;
}

/** Plans the exploration of a gate: its part of the budget, or the reason why there is none. */
export function planExploration(
  request: ExplorationRequest,
): { exploration: GateExploration } | { unexplored: string } {
  const { target, runtime, filesystem = DEFAULT_FILESYSTEM, budgetMs } = request;
  if (!target.guarantee.faults.includes('crash-states'))
    return { unexplored: 'the target does not claim it' };
  if (request.wanted !== undefined)
    return { unexplored: `a gate with --faults explores none (use ${commandLine('explore')})` };
  if (request.maxRounds !== undefined || request.maxInjections !== undefined)
    return {
      unexplored: `a gate with --rounds or --injections explores none (use ${commandLine('explore')})`,
    };
  const least = explorationMinimum(target);
  if (budgetMs < least.gateBudgetMs)
    return {
      unexplored: `a gate explores them only with a budget of ${least.gateBudgetMs / 1000} s or more (--budget ${(1.5 * least.gateBudgetMs) / 1000}s, or ${commandLine('explore')})`,
    };
  if (runtime.name !== 'process')
    return { unexplored: 'they are explored under process only (--runtime process)' };
  const availability = blocklogAvailability(filesystem.type);
  if (!availability.available) return { unexplored: `${availability.why} (${availability.remedy})` };
  const exploreMs = Math.round(
    Math.min(MAX_EXPLORATION_MS, Math.max(least.explorationMs, budgetMs * BUDGET_SHARE)),
  );
  return {
    exploration: {
      budgetMs: exploreMs,
      run: (options) =>
        runExplore({
          ...options,
          filesystem,
          keep: false,
          replay: (seed) => request.replay(seed, options.budgetMs),
        }),
    },
  };
}

/** What `explore` needs from the gate. */
interface GateSoFar {
  target: Target;
  runtime: PreparedRuntime;
  seed: number;
  /** Time until the end of the gate's budget, in milliseconds. */
  leftMs: number;
  /** Directory of the evidence of the exploration. */
  out: string;
  signal: AbortSignal;
  progress(line: string): void;
}

/**
 * Explores crash states at the end of a gate.
 * @returns what was found, or the reason when the target did not start: the rounds of the gate stay measured.
 * @throws KitError bad-target, kit-failed as `runExplore`.
 */
export async function exploreInGate(
  { run }: GateExploration,
  { leftMs, ...gate }: GateSoFar,
): Promise<CrashStatesSummary | { unexplored: string }> {
  // Round to whole seconds: the command line that repeats the exploration contains this budget.
  const budgetMs = 1000 * Math.max(MIN_EXPLORATION_MS / 1000, Math.floor(leftMs / 1000));
  gate.progress(`crash states, seed ${gate.seed}: one recorded run, then its disks, ${budgetMs / 1000} s`);
  try {
    const { smallest, ...result } = await run({ ...gate, budgetMs });
    return { ...result, story: smallest?.story ?? [] };
  } catch (error) {
    if (gate.signal.aborted || !(error instanceof KitError) || error.code !== 'target-unavailable')
      throw error;
    return { unexplored: error.message };
  }
}

/** Puts the finding of an exploration, or why there was none, in the place of the finding of the rounds. */
export function withCrashStates(
  evaluation: Evaluation,
  explored: CrashStatesSummary | { unexplored: string },
): Evaluation {
  const findings = evaluation.findings.map((finding) =>
    finding.requirement === EXPLORED_REQUIREMENT ? findingOf(finding, explored) : finding,
  );
  const finding = findings.find(({ requirement }) => requirement === EXPLORED_REQUIREMENT);
  if (finding === undefined) return evaluation;
  if (finding.verdict === 'fail') {
    const why = `${finding.requirement}: ${finding.why}`;
    return {
      ...evaluation,
      findings,
      verdict: 'fail',
      why: evaluation.verdict === 'fail' ? `${evaluation.why}; ${why}` : why,
    };
  }
  if (evaluation.verdict !== 'pass') return { ...evaluation, findings };
  const measured = findings.filter(({ verdict }) => verdict === 'pass').length;
  const why = `${measured} of ${findings.length} claimed requirements measured, all passed`;
  return { ...evaluation, findings, why };
}

function findingOf(finding: Finding, explored: CrashStatesSummary | { unexplored: string }): Finding {
  if ('unexplored' in explored)
    return { ...finding, why: `no crash state was explored: ${explored.unexplored}` };
  const { verdict, why, violations } = explored;
  return {
    ...finding,
    verdict,
    why,
    violations: violations.map(({ requirement: _requirement, ...violation }) => violation),
  };
}

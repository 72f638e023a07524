import { type Evaluation, evaluate } from '../../conformance/checkers/evaluate.js';
import { messageEvents } from '../../conformance/checkers/message-events.js';
import type { Verdict } from '../../conformance/checkers/verdict.js';
import type { HistoryEvent } from '../../conformance/history/events.js';
import type { Target } from '../../conformance/target-file/definition.js';
import type { PowerBackendName } from '../runtime/power-backends.js';
import type { Selection } from './select-faults.js';

/**
 * Number of times that a fault was tried and hit. `why` and `remedy` are set if it could not be tried at all.
 */
export interface FaultCount {
  name: string;
  tried: number;
  hit: number;
  /** Backend of a power cut; absent for other faults. */
  powerBackend?: string;
  why?: string;
  remedy?: string;
}

/** Result of a gate: the object that `--json` prints, and the input of the readable report. */
export interface GateResult {
  target: string;
  verdict: Verdict;
  why: string;
  requirements: { id: string; verdict: Verdict; why: string }[];
  unclaimed: string[];
  faults: FaultCount[];
  rounds: number;
  submitted: number;
  confirmed: number;
  rejected: number;
  indefinite: number;
  delivered: number;
  lost: number;
  /** Number of confirmed messages that were not delivered in time, and of which it is not known whether they are lost. */
  notDelivered: number;
  duplicates: number;
  /**
   * Number of allowed redeliveries: of messages that were in delivery at a crash, and after a loss of the
   * index.
   */
  redeliveries: number;
  corrupted: number;
  crashes: number;
  /** Duration of the slowest start after a crash; null without such a start. */
  worstRecoveryMs: number | null;
  tookMs: number;
  seed: number;
  /** Command line that runs the gate again. */
  replay: string;
  /** Directory of history, schedule and logs; null when it was removed. */
  evidence: string | null;
  /** Path of the file for `plugpull replay`; null when nothing failed. */
  bundle: string | null;
  violations: { requirement: string; id?: string; what: string }[];
  /** Events of the first message that a violation names, with the faults in between. */
  story: HistoryEvent[];
}

/** Facts from which `resultOf` makes the result of a gate. */
export interface GateFacts {
  target: Target;
  selection: Selection;
  power: PowerBackendName;
  events: readonly HistoryEvent[];
  rounds: number;
  tookMs: number;
  seed: number;
  replay: string;
  evidence: string | null;
  bundle: string | null;
}

const MAX_REPORTED_VIOLATIONS = 10;

/**
 * Makes the result of a gate: evaluates the history against the target's claims, and counts the figures of
 * the report.
 */
export function resultOf(
  facts: GateFacts,
  evaluation: Evaluation = evaluate(facts.events, facts.target),
): GateResult {
  const { target, selection, power, events, rounds, tookMs, seed, replay, evidence, bundle } = facts;
  const outcomes = { confirmed: 0, rejected: 0, indefinite: 0 };
  for (const event of events) if (event.kind === 'answered') outcomes[event.outcome]++;
  const violations = evaluation.findings.flatMap(({ requirement, violations }) =>
    violations.map((violation) => ({ requirement, ...violation })),
  );
  const first = violations.find(({ id }) => id !== undefined)?.id;
  const recoveries = events.flatMap((event) => (event.kind === 'recovered' ? [event.tookMs] : []));
  return {
    target: target.name,
    verdict: evaluation.verdict,
    why: evaluation.why,
    requirements: evaluation.findings.map(({ requirement, verdict, why }) => ({
      id: requirement,
      verdict,
      why,
    })),
    unclaimed: evaluation.unclaimed,
    faults: countFaults(events, selection, power),
    rounds,
    submitted: count(events, (event) => event.kind === 'submitted'),
    ...outcomes,
    delivered: count(events, (event) => event.kind === 'delivered'),
    lost: sumFigure(evaluation, 'lost'),
    notDelivered: sumFigure(evaluation, 'notDelivered'),
    duplicates: sumFigure(evaluation, 'duplicates'),
    redeliveries: sumFigure(evaluation, 'inDelivery') + sumFigure(evaluation, 'afterIndexLoss'),
    corrupted: sumFigure(evaluation, 'corrupted'),
    crashes: count(events, (event) => event.kind === 'fault' && event.hit && event.scope !== 'none'),
    worstRecoveryMs: recoveries.length === 0 ? null : Math.max(...recoveries),
    tookMs,
    seed,
    replay,
    evidence,
    bundle,
    violations: violations.slice(0, MAX_REPORTED_VIOLATIONS),
    story: first === undefined ? [] : messageEvents(events, first),
  };
}

function countFaults(
  events: readonly HistoryEvent[],
  { faults, unavailable: missing }: Selection,
  power: PowerBackendName,
): FaultCount[] {
  const counts = faults.map(({ name, needs }): FaultCount => {
    const injections = events.filter((event) => event.kind === 'fault' && event.fault === name);
    const hit = count(injections, (event) => event.kind === 'fault' && event.hit);
    return {
      name,
      tried: injections.length,
      hit,
      ...(needs.disk === 'power' ? { powerBackend: power } : {}),
    };
  });
  const notTried = missing.map(({ name, availability: { why, remedy } }) => ({
    name,
    tried: 0,
    hit: 0,
    why,
    remedy,
  }));
  return [...counts, ...notTried];
}

function count(events: readonly HistoryEvent[], test: (event: HistoryEvent) => boolean): number {
  return events.filter(test).length;
}

function sumFigure({ findings }: Evaluation, name: string): number {
  return findings.reduce((sum, { figures }) => sum + (figures[name] ?? 0), 0);
}

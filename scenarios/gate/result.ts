import { type Evaluation, evaluate } from '../../conformance/checkers/evaluate.js';
import { messageEvents } from '../../conformance/checkers/message-events.js';
import type { Verdict } from '../../conformance/checkers/verdict.js';
import type { HistoryEvent } from '../../conformance/history/events.js';
import type { Target } from '../../conformance/target-file/definition.js';
import type { PowerBackendName } from '../runtime/power-backends.js';
import type { Selection } from './select-faults.js';

/** How often a fault was tried and hit; `why` says why it could not be tried at all. */
export interface FaultCount {
  name: string;
  tried: number;
  hit: number;
  /** Backend of a power cut; absent for other faults. */
  powerBackend?: string;
  why?: string;
  remedy?: string;
}

/** What a gate found: the one object of `--json`, and all that the readable report needs. */
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
  duplicates: number;
  /** Redeliveries that are allowed: of messages in delivery at a crash, and after a loss of the index. */
  redeliveries: number;
  corrupted: number;
  crashes: number;
  /** Of the start after a crash that took longest; null when there was none. */
  worstRecoveryMs: number | null;
  tookMs: number;
  seed: number;
  /** The line that runs it again. */
  replay: string;
  /** Where history, schedule and logs are kept; null when they were dropped. */
  evidence: string | null;
  /** The file that `plugpull replay` takes; null when nothing failed. */
  bundle: string | null;
  violations: { requirement: string; id?: string; what: string }[];
  /** The whole story of the first message concerned. */
  story: HistoryEvent[];
}

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

/** Holds the history against what the target claims, and counts what a report tells. */
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

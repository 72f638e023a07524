import type { HistoryEvent } from '../history/events.js';
import {
  familyOf,
  REQUIREMENTS,
  type Requirement,
  type RequirementId,
} from '../requirements/requirements.js';
import { FAULT_NAMES, type Guarantee } from '../target-file/definition.js';
import { checkLinks } from './cluster-links.js';
import { checkNodeLoss, checkPowerCutOfNodes } from './cluster-loss.js';
import { checkAtomicity, checkIntegrity } from './corruption.js';
import { checkCrashStates } from './crash-states.js';
import { checkDuplicates } from './duplicates.js';
import { checkElection } from './election.js';
import { checkFull } from './full.js';
import { inFamily } from './hits.js';
import { checkIndexState } from './index-state.js';
import { checkIoErrors } from './io-errors.js';
import { checkLoss } from './loss.js';
import { lossAfterFault } from './loss-after-fault.js';
import { checkNeverSubmitted } from './never-submitted.js';
import { checkOrder } from './order.js';
import { checkRecovers, checkRecoveryTime } from './recovery.js';
import { checkRejected } from './rejected.js';
import { checkRot } from './rot.js';
import { vacuityReason } from './vacuity.js';
import type { Finding, Verdict } from './verdict.js';

/** Pure function from a history to the finding of one requirement. */
export type Checker = (history: readonly HistoryEvent[], guarantee: Guarantee) => Finding;

/** The checker of each requirement. */
export const CHECKERS: Readonly<Record<RequirementId, Checker>> = {
  'PP-1': checkLoss,
  'PP-2': checkDuplicates,
  'PP-3': checkRejected,
  'PP-4': checkIntegrity,
  'PP-5': checkAtomicity,
  'PP-6': checkNeverSubmitted,
  'PP-7': checkRot,
  'PP-8': checkFull,
  'PP-9': checkIndexState,
  'PP-10': checkRecovers,
  'PP-11': checkRecoveryTime,
  'PP-12': lossAfterFault('PP-12', ['power cut', 'power cuts'], inFamily('power-cut')),
  'PP-13': checkCrashStates,
  'PP-14': checkIoErrors,
  'PP-15': lossAfterFault(
    'PP-15',
    ['interrupted recovery', 'interrupted recoveries'],
    (fault) => fault === 'kill-recovery',
  ),
  'PP-16': lossAfterFault('PP-16', ['tear', 'tears'], (fault) => fault === 'tear'),
  'PP-17': lossAfterFault('PP-17', ['damaged index', 'damaged indexes'], (fault) => fault === 'index-loss'),
  'PP-18': lossAfterFault('PP-18', ['jump of the clock', 'jumps of the clock'], (fault) => fault === 'clock'),
  'PP-19': lossAfterFault('PP-19', ['full disk', 'full disks'], (fault) => fault === 'disk-full'),
  'PP-20': checkOrder,
  'PP-21': checkPowerCutOfNodes,
  'PP-22': checkNodeLoss,
  'PP-23': checkLinks,
  'PP-24': checkElection,
};

/** Result of all checkers for one history. */
export interface Evaluation {
  verdict: Verdict;
  /** Reason of the verdict, one line. */
  why: string;
  /** Findings of the requirements that the target claims, in order. */
  findings: Finding[];
  /** Requirements that the target does not claim. They were not evaluated. */
  unclaimed: RequirementId[];
}

/**
 * Evaluates a history against the claims of the target.
 *
 * A requirement is in the scope of a run if the run tried a fault that it needs. The verdict is `fail` if a
 * claimed requirement failed, in scope or not. Otherwise it is `not-measured` if the run proves nothing, or if
 * a requirement in scope, whose situation a run can force, was not measured. Otherwise it is `pass`. A
 * requirement out of scope is reported and does not keep the run from passing.
 */
export function evaluate(
  history: readonly HistoryEvent[],
  target: { guarantee: Guarantee; verify?: readonly string[] | undefined },
  checkers: Readonly<Record<RequirementId, Checker>> = CHECKERS,
): Evaluation {
  const vacuousReason = vacuityReason(history);
  const claimed = REQUIREMENTS.filter((requirement) => requirement.isClaimedBy(target));
  const findings = claimed.map(({ id }) => {
    const found = checkers[id](history, target.guarantee);
    if (found.verdict !== 'pass' || vacuousReason === null) return found;
    return { ...found, verdict: 'not-measured' as const, why: vacuousReason };
  });
  const unclaimed = REQUIREMENTS.filter((requirement) => !claimed.includes(requirement)).map(({ id }) => id);
  return { ...overallVerdict(history, claimed, findings, vacuousReason), findings, unclaimed };
}

function overallVerdict(
  history: readonly HistoryEvent[],
  claimed: readonly Requirement[],
  findings: readonly Finding[],
  vacuousReason: string | null,
): { verdict: Verdict; why: string } {
  const failed = findings.filter(({ verdict }) => verdict === 'fail');
  if (failed.length > 0) return { verdict: 'fail', why: failed.map(describe).join('; ') };
  if (vacuousReason !== null) return { verdict: 'not-measured', why: vacuousReason };
  const tried = triedFaults(history);
  const inScope = claimed.filter(({ needs }) => needs === 'any' || needs.some((fault) => tried.has(fault)));
  const unmeasured = inScope
    .filter(({ byChance }) => !byChance)
    .flatMap(({ id }) => {
      return findings.filter(({ requirement, verdict }) => requirement === id && verdict === 'not-measured');
    });
  if (unmeasured.length > 0) return { verdict: 'not-measured', why: unmeasured.map(describe).join('; ') };
  const measured = findings.filter(({ verdict }) => verdict === 'pass').length;
  return {
    verdict: 'pass',
    why: `${measured} of ${findings.length} claimed requirements measured, all passed`,
  };
}

function describe({ requirement, why }: Finding): string {
  return `${requirement}: ${why}`;
}

/** Returns the faults that the run planned or injected, and their families. */
function triedFaults(history: readonly HistoryEvent[]): Set<string> {
  const tried = new Set<string>();
  for (const event of history) {
    const names = event.kind === 'run-started' ? event.faults : event.kind === 'fault' ? [event.fault] : [];
    for (const name of names) tried.add(name).add(familyOf(name, FAULT_NAMES) ?? name);
  }
  return tried;
}

import type { HistoryEvent } from '../history/events.js';
import { familyOf, REQUIREMENTS, type Requirement, type RequirementId } from '../requirements.js';
import { FAULT_NAMES, type Guarantee } from '../target/definition.js';
import { checkIntact, checkWhole } from './corruption.js';
import { checkDuplicates } from './duplicates.js';
import { checkFull } from './full.js';
import { checkIndexState } from './index-state.js';
import { checkIoErrors } from './io-errors.js';
import { checkLoss } from './loss.js';
import { checkNeverSubmitted } from './never-submitted.js';
import { checkPowerLoss } from './power-loss.js';
import { checkRecovers, checkRecoveryTime } from './recovery.js';
import { checkRejected } from './rejected.js';
import { checkRot } from './rot.js';
import { vacuity } from './vacuity.js';
import type { Finding, Verdict } from './verdict.js';

export type Checker = (history: readonly HistoryEvent[], guarantee: Guarantee) => Finding;

/** The checker of each requirement. */
export const CHECKERS: Readonly<Record<RequirementId, Checker>> = {
  'PP-1': checkLoss,
  'PP-2': checkDuplicates,
  'PP-3': checkRejected,
  'PP-4': checkIntact,
  'PP-5': checkWhole,
  'PP-6': checkNeverSubmitted,
  'PP-7': checkRot,
  'PP-8': checkFull,
  'PP-9': checkIndexState,
  'PP-10': checkRecovers,
  'PP-11': checkRecoveryTime,
  'PP-12': checkPowerLoss,
  'PP-14': checkIoErrors,
};

export interface Evaluation {
  verdict: Verdict;
  /** One line: why this verdict. */
  why: string;
  /** One for each requirement that the target claims, in order. */
  findings: Finding[];
  /** Requirements that the target does not claim; they were not looked at. */
  unclaimed: RequirementId[];
}

/**
 * Holds a history against what the target claims.
 *
 * A requirement is in the scope of a run when the run tried a fault that it needs. The verdict is fail when any
 * claimed requirement failed, in scope or not; else not-measured when the run proves nothing, when nothing is in scope, or when a
 * requirement in scope was not measured whose occasion a run can bring about; else pass. A requirement out of
 * scope is reported as it was found, and a run that was not meant to measure it is not held to it.
 */
export function evaluate(
  history: readonly HistoryEvent[],
  target: { guarantee: Guarantee; verify?: readonly string[] | undefined },
  checkers: Readonly<Record<RequirementId, Checker>> = CHECKERS,
): Evaluation {
  const empty = vacuity(history);
  const claimed = REQUIREMENTS.filter((requirement) => requirement.claimed(target));
  const findings = claimed.map(({ id }) => {
    const found = checkers[id](history, target.guarantee);
    if (found.verdict !== 'pass' || empty === null) return found;
    return { ...found, verdict: 'not-measured' as const, why: empty };
  });
  const unclaimed = REQUIREMENTS.filter((requirement) => !claimed.includes(requirement)).map(({ id }) => id);
  return { ...overall(history, claimed, findings, empty), findings, unclaimed };
}

function overall(
  history: readonly HistoryEvent[],
  claimed: readonly Requirement[],
  findings: readonly Finding[],
  empty: string | null,
): { verdict: Verdict; why: string } {
  const failed = findings.filter(({ verdict }) => verdict === 'fail');
  if (failed.length > 0) return { verdict: 'fail', why: failed.map(describe).join('; ') };
  if (empty !== null) return { verdict: 'not-measured', why: empty };
  const tried = triedFaults(history);
  const inScope = claimed.filter(({ needs }) => needs === 'any' || needs.some((fault) => tried.has(fault)));
  const open = inScope
    .filter(({ byChance }) => !byChance)
    .flatMap(({ id }) => {
      return findings.filter(({ requirement, verdict }) => requirement === id && verdict === 'not-measured');
    });
  if (open.length > 0) return { verdict: 'not-measured', why: open.map(describe).join('; ') };
  const measured = findings.filter(({ verdict }) => verdict === 'pass').length;
  return {
    verdict: 'pass',
    why: `${measured} of ${findings.length} claimed requirements measured, all passed`,
  };
}

function describe({ requirement, why }: Finding): string {
  return `${requirement}: ${why}`;
}

/** Families of the faults that the run set out to try, or tried. */
function triedFaults(history: readonly HistoryEvent[]): Set<string> {
  const families = new Set<string>();
  for (const event of history) {
    const names = event.kind === 'run-started' ? event.faults : event.kind === 'fault' ? [event.fault] : [];
    for (const name of names) families.add(familyOf(name, FAULT_NAMES) ?? name);
  }
  return families;
}

import type { RequirementId } from '../requirements/requirements.js';
import type { Finding, Verdict, Violation } from './verdict.js';

/** More are counted and not told: a report with all of a hundred thousand lost messages helps nobody. */
export const MAX_REPORTED_VIOLATIONS = 1000;

/** Gathers violations of one requirement, bounded in number. */
export class Violations {
  count = 0;
  readonly reported: Violation[] = [];

  add(what: string, id?: string): void {
    this.count += 1;
    if (this.reported.length < MAX_REPORTED_VIOLATIONS)
      this.reported.push(id === undefined ? { what } : { id, what });
  }
}

export function makeFinding(
  requirement: RequirementId,
  verdict: Verdict,
  why: string,
  figures: Record<string, number>,
  violations?: Violations,
): Finding {
  return { requirement, verdict, why, violations: violations?.reported ?? [], figures };
}

/** The usual case: any violation fails, and something must have been there to be measured. */
export function judgeViolations(
  requirement: RequirementId,
  violations: Violations,
  measured: { count: number; what: string },
  failureText: string,
  figures: Record<string, number>,
): Finding {
  if (violations.count > 0) {
    return makeFinding(requirement, 'fail', `${violations.count} ${failureText}`, figures, violations);
  }
  if (measured.count === 0) return makeFinding(requirement, 'not-measured', `no ${measured.what}`, figures);
  return makeFinding(requirement, 'pass', `none among ${measured.count} ${measured.what}`, figures);
}

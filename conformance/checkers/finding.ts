import type { RequirementId } from '../requirements/requirements.js';
import type { Finding, Verdict, Violation } from './verdict.js';

/** More are counted and not told: a report with all of a hundred thousand lost messages helps nobody. */
export const MOST_VIOLATIONS = 1000;

/** Gathers violations of one requirement, bounded in number. */
export class Violations {
  count = 0;
  readonly told: Violation[] = [];

  add(what: string, id?: string): void {
    this.count += 1;
    if (this.told.length < MOST_VIOLATIONS) this.told.push(id === undefined ? { what } : { id, what });
  }
}

export function finding(
  requirement: RequirementId,
  verdict: Verdict,
  why: string,
  figures: Record<string, number>,
  violations?: Violations,
): Finding {
  return { requirement, verdict, why, violations: violations?.told ?? [], figures };
}

/** The usual case: any violation fails, and something must have been there to be measured. */
export function judged(
  requirement: RequirementId,
  violations: Violations,
  measured: { count: number; what: string },
  failed: string,
  figures: Record<string, number>,
): Finding {
  if (violations.count > 0) {
    return finding(requirement, 'fail', `${violations.count} ${failed}`, figures, violations);
  }
  if (measured.count === 0) return finding(requirement, 'not-measured', `no ${measured.what}`, figures);
  return finding(requirement, 'pass', `none among ${measured.count} ${measured.what}`, figures);
}

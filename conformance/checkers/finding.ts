import type { RequirementId } from '../requirements/requirements.js';
import type { Finding, Verdict, Violation } from './verdict.js';

/**
 * Greatest number of violations in a finding. Further violations are only counted: a report with 100,000 lost
 * messages is useless.
 */
export const MAX_REPORTED_VIOLATIONS = 1000;

/** Collects the violations of one requirement. It counts all and keeps at most MAX_REPORTED_VIOLATIONS. */
export class Violations {
  count = 0;
  readonly reported: Violation[] = [];

  add(what: string, id?: string): void {
    this.count += 1;
    if (this.reported.length < MAX_REPORTED_VIOLATIONS)
      this.reported.push(id === undefined ? { what } : { id, what });
  }
}

/** Makes a finding. The finding's list of violations is empty when `violations` is not given. */
export function makeFinding(
  requirement: RequirementId,
  verdict: Verdict,
  why: string,
  figures: Record<string, number>,
  violations?: Violations,
): Finding {
  return { requirement, verdict, why, violations: violations?.reported ?? [], figures };
}

/**
 * Makes the usual finding: one violation fails the requirement, and without anything measured it is not measured.
 * @param measured number of things that were checked, and their name in the plural.
 * @param failureText completes `N …` when there are violations.
 */
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

/** The three answers that a checker has; not measured never counts as passed. */
export type Verdict = 'pass' | 'fail' | 'not-measured';

/** One proven breach, told so that a person can follow it. */
export interface Violation {
  /** The message concerned, if it is one message. */
  id?: string;
  /** One line. */
  what: string;
}

/** What a checker returns for the requirement that it measures. */
export interface Finding {
  requirement: string;
  verdict: Verdict;
  /** One line: why this verdict. */
  why: string;
  violations: Violation[];
  /** Counts worth reporting, by name (`lost`, `duplicates`, `worstRecoveryMs`, …). */
  figures: Record<string, number>;
}

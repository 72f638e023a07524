/** Verdict of a checker. `not-measured` never counts as passed. */
export type Verdict = 'pass' | 'fail' | 'not-measured';

/** One proven violation of a requirement. */
export interface Violation {
  /** Id of the message, if the violation concerns one message. */
  id?: string;
  /** Description for a person, one line. */
  what: string;
}

/** Result of a checker for its requirement. */
export interface Finding {
  requirement: string;
  verdict: Verdict;
  /** Reason of the verdict, one line. */
  why: string;
  violations: Violation[];
  /** Reported numbers by name (`lost`, `duplicates`, `worstRecoveryMs`, …). */
  figures: Record<string, number>;
}

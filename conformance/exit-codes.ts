/** Exit codes of the commands of `plugpull`. README.md ("Exit codes") is the published table: a code never changes its meaning. */
export const EXIT_CODES = {
  pass: 0,
  /**
   * A requirement was violated, a planted bug was not found, or a certificate does not match its evidence.
   */
  violation: 1,
  /** Wrong usage, or a file that the user gave is wrong. */
  usage: 2,
  /** Nothing was proven: no time, no hit, or a thing that this machine does not have. */
  notMeasured: 3,
  /** The kit itself failed. */
  kitFailed: 4,
} as const;

/** Exit code for each verdict, for commands whose result is a verdict. */
export const VERDICT_EXIT_CODES = {
  pass: EXIT_CODES.pass,
  fail: EXIT_CODES.violation,
  'not-measured': EXIT_CODES.notMeasured,
} as const;

/**
 * Exit codes of a program that a signal ended, as a shell reports them: 128 plus the number of the signal.
 */
export const SIGNAL_EXIT_CODES = { SIGINT: 130, SIGTERM: 143 } as const;

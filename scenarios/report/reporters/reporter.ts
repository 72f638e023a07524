import type { Outcome } from '../outcome.js';
import type { Style } from '../style.js';

/** A form in which an outcome is reported. */
export interface Reporter {
  name: string;
  /** Stream to which the reporter writes when no file is named. */
  stream: 'stdout' | 'stderr';
  /**
   * False when only the program that reads the stream can use the output, so that a file of it would be
   * useless.
   */
  supportsFile: boolean;
  /**
   * Returns the whole text, with a newline at its end. It may also have side effects, such as a job
   * summary.
   */
  render(outcome: Outcome, style: Style): string | Promise<string>;
}

/**
 * Returns the name of an additional failing test for a run that was not measured, otherwise undefined. A
 * form that knows only passed, failed and skipped tests would show such a run as a success, although it
 * proved nothing.
 */
export function notMeasuredTestName({ verdict }: Outcome): string | undefined {
  return verdict === 'not-measured' ? 'the run measured what it set out to measure' : undefined;
}

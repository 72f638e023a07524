import type { Outcome } from '../outcome.js';
import type { Style } from '../style.js';

/** What every reporter has. */
interface Form {
  name: string;
  /** Stream to which the reporter writes when no file is named. */
  stream: 'stdout' | 'stderr';
  /**
   * False when only the program that reads the stream can use the output, so that a file of it would be
   * useless.
   */
  supportsFile: boolean;
}

/** A form in which the outcome is reported as text. */
export interface TextReporter extends Form {
  /**
   * Returns the whole text, with a newline at its end. It may also have side effects, such as a job
   * summary.
   */
  render(outcome: Outcome, style: Style): string | Promise<string>;
}

/** A form that is made from the evidence of the run, which is then kept. */
export interface EvidenceReporter extends Form {
  /**
   * Writes the report to `file`; undefined means a file of its own in the evidence. Resolves to the path.
   */
  write(evidence: string, file: string | undefined): Promise<string>;
}

/** A form in which an outcome is reported. */
export type Reporter = TextReporter | EvidenceReporter;

/**
 * Returns the name of an additional failing test for a run that was not measured, otherwise undefined. A
 * form that knows only passed, failed and skipped tests would show such a run as a success, although it
 * proved nothing.
 */
export function notMeasuredTestName({ verdict }: Outcome): string | undefined {
  return verdict === 'not-measured' ? 'the run measured what it set out to measure' : undefined;
}

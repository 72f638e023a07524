import type { Outcome } from '../outcome.js';
import type { Style } from '../style.js';

/** A form in which an outcome is told. */
export interface Reporter {
  name: string;
  /** Where it goes when no file is named. */
  stream: 'stdout' | 'stderr';
  /** False for what is meant for a machine that reads the stream, and would mean nothing in a file. */
  supportsFile: boolean;
  /** The whole text, with a newline at its end; what has to be done besides is done too. */
  render(outcome: Outcome, style: Style): string | Promise<string>;
}

/**
 * Forms that know only passed, failed and skipped would show a run that proved nothing as green: such a run gets one
 * more test, which fails.
 */
export function notMeasuredTestName({ verdict }: Outcome): string | undefined {
  return verdict === 'not-measured' ? 'the run measured what it set out to measure' : undefined;
}

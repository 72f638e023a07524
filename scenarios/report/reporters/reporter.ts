import type { Outcome } from '../outcome.js';
import type { Style } from '../style.js';

/** A form in which an outcome is told. */
export interface Reporter {
  name: string;
  /** Where it goes when no file is named. */
  stream: 'stdout' | 'stderr';
  /** False for what is meant for a machine that reads the stream, and would mean nothing in a file. */
  toFile: boolean;
  /** The whole text, with a newline at its end; what has to be done besides is done too. */
  render(outcome: Outcome, style: Style): string | Promise<string>;
}

import type { Verdict } from '../../conformance/checkers/verdict.js';
import { styleMark } from '../host/visible.js';

/**
 * Functions that colour a text. They return it unchanged when the stream should have no colours. Otherwise they put
 * marks around it, which become colour codes when the line is printed: foreign text is escaped only then.
 */
export interface Style {
  good(text: string): string;
  bad(text: string): string;
  warn(text: string): string;
  strong(text: string): string;
  faint(text: string): string;
}

/**
 * Returns the style of a stream. It has colours when the stream is a terminal that supports them, and
 * NO_COLOR is not set or empty.
 */
export function styleFor(stream: { isTTY?: boolean }, environment: NodeJS.ProcessEnv = process.env): Style {
  const coloured = stream.isTTY === true && !environment.NO_COLOR && environment.TERM !== 'dumb';
  const colour = (code: number) => (text: string) =>
    coloured ? `${styleMark(code)}${text}${styleMark(0)}` : text;
  return { good: colour(32), bad: colour(31), warn: colour(33), strong: colour(1), faint: colour(2) };
}

/** Style without colours, for a file. */
export const plainStyle: Style = styleFor({});

/** Colours a verdict, or another text for it, in the colour of the verdict. */
export function colourVerdict(style: Style, verdict: Verdict, text: string = verdict): string {
  if (verdict === 'pass') return style.good(text);
  return verdict === 'fail' ? style.bad(text) : style.warn(text);
}

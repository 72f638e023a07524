import type { Verdict } from '../../conformance/checkers/verdict.js';

/** Colours for a terminal; plain text where the stream is none or NO_COLOR is set (to anything but nothing). */
export interface Style {
  good(text: string): string;
  bad(text: string): string;
  warn(text: string): string;
  strong(text: string): string;
  faint(text: string): string;
}

export function styleFor(stream: { isTTY?: boolean }, environment: NodeJS.ProcessEnv = process.env): Style {
  const coloured = stream.isTTY === true && !environment.NO_COLOR && environment.TERM !== 'dumb';
  const colour = (code: number) => (text: string) => (coloured ? `\u001b[${code}m${text}\u001b[0m` : text);
  return { good: colour(32), bad: colour(31), warn: colour(33), strong: colour(1), faint: colour(2) };
}

/** For what is no terminal, such as a file. */
export const plainStyle: Style = styleFor({});

/** A verdict, or other words for it, in its colour. */
export function colourVerdict(style: Style, verdict: Verdict, text: string = verdict): string {
  if (verdict === 'pass') return style.good(text);
  return verdict === 'fail' ? style.bad(text) : style.warn(text);
}

import type { Verdict } from '../../conformance/checkers/verdict.js';
import type { Style } from './style.js';

/** A verdict, or other words for it, in its colour. */
export function paint(style: Style, verdict: Verdict, text: string = verdict): string {
  if (verdict === 'pass') return style.good(text);
  return verdict === 'fail' ? style.bad(text) : style.warn(text);
}

import type { ReportVerdict } from '../../html/model.js';

const MARKS = { pass: '✓', fail: '✗', 'not-measured': '○', 'not-claimed': '–' } as const;
const WORDS = {
  pass: 'pass',
  fail: 'fail',
  'not-measured': 'not measured',
  'not-claimed': 'not claimed',
} as const;

/** Shows a verdict by sign, word and colour. */
export function VerdictMark({ verdict }: { verdict: ReportVerdict | 'not-claimed' }) {
  return (
    <span class={`verdict ${verdict}`}>
      <span aria-hidden="true">{MARKS[verdict]}</span> {WORDS[verdict]}
    </span>
  );
}

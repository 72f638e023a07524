import { fixItLink } from '../../host/fix-it.js';
import { visible, visibleJson } from '../../host/visible.js';
import { notMeasuredTestName, type TextReporter } from './reporter.js';

/**
 * Reporter for the Test Anything Protocol, version 14: one test point per requirement. A requirement that was
 * not measured is skipped.
 */
export const tap: TextReporter = {
  name: 'tap',
  stream: 'stdout',
  supportsFile: true,
  render(outcome) {
    const points = outcome.requirements.map(({ id, title, verdict, why, violations }) => {
      if (verdict === 'fail')
        return {
          ok: false,
          description: `${id} ${title}`,
          details: { why, violations, fixIt: fixItLink(id) },
        };
      const skip = verdict === 'pass' ? '' : ` # SKIP not measured: ${escapeTap(why)}`;
      return { ok: true, description: `${id} ${title}`, skip };
    });
    const extraTestName = notMeasuredTestName(outcome);
    const all = [
      ...points,
      ...(extraTestName === undefined
        ? []
        : [{ ok: false, description: extraTestName, details: { why: outcome.why } }]),
    ];
    const lines = ['TAP version 14', `1..${all.length}`];
    all.forEach((point, index) => {
      const skip = 'skip' in point ? point.skip : '';
      lines.push(`${point.ok ? 'ok' : 'not ok'} ${index + 1} - ${escapeTap(point.description)}${skip}`);
      if (!('details' in point)) return;
      lines.push('  ---');
      // A JSON value is also a YAML value.
      for (const [key, value] of Object.entries(point.details))
        lines.push(`  ${key}: ${visibleJson(JSON.stringify(value))}`);
      lines.push('  ...');
    });
    lines.push(visible(`# ${outcome.target}: ${outcome.verdict}: ${outcome.why}`));
    return `${lines.join('\n')}\n`;
  },
};

/** Escapes a part of a test point, in which `#` would begin a directive such as TODO. */
function escapeTap(text: string): string {
  return visible(text).replace(/[\\#]/g, (character) => `\\${character}`);
}

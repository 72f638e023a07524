import type { Certified } from '../../conformance/certificate/certificate.js';
import { paint, type Style } from './style.js';
import { table } from './table.js';

/** What a certificate says, for people, as lines. */
export function certificateReport(certified: Certified, certificate: string, style: Style): string[] {
  const { levels, requirements, runs } = certified;
  return [
    '',
    `${style.strong(certified.target)}: ${runs.length} runs, seed ${certified.seed}, runtime ${certified.made.runtime}`,
    '',
    style.strong('Runs'),
    ...table(
      runs.map((run) => [
        `  ${run.level}`,
        `${run.confirmed} confirmed`,
        `${run.crashes.length} crashes`,
        `most at risk ${Math.max(0, ...run.crashes.map((crash) => crash.confirmedUndelivered))}`,
        run.faults.map(({ name, tried, hit }) => `${name} ${hit}/${tried}`).join(', '),
      ]),
    ),
    ...runs.flatMap(({ notTried }) => notTried.map(({ name, why }) => `  not tried: ${name}: ${why}`)),
    '',
    style.strong('Requirements'),
    ...lined(
      requirements.map(({ verdict }) => paint(style, verdict, verdict.padEnd('not-measured'.length))),
      table(requirements.map(({ id, level, title, why }) => [`${id}  ${title}`, level, why])),
    ),
    '',
    style.strong('Levels'),
    ...lined(
      levels.map(({ granted }) => (granted ? style.good('granted ') : style.warn('no      '))),
      table(
        levels.map(({ level, why, without }) => [
          level,
          without.length === 0 ? why : `${why}; not claimed: ${without.join(', ')}`,
        ]),
      ),
    ),
    '',
    `${paint(style, certified.verdict)}: ${certified.why}`,
    `certificate: ${certificate} (check it with: plugpull verify ${certificate})`,
  ];
}

/** One line: target, verdict, levels. */
export function certifiedLine({ target, verdict, granted }: Certified): string {
  const levels = granted.length === 0 ? 'no level' : `level ${granted.join(', ')}`;
  return `${target}, ${verdict}, ${levels}`;
}

function lined(heads: readonly string[], rows: readonly string[]): string[] {
  return heads.map((head, index) => `  ${head}  ${rows[index] ?? ''}`);
}

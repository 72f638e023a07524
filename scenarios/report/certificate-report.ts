import type { CertificateBody } from '../../conformance/certificate/certificate.js';
import { commandLine, pathFromHere } from '../host/command-line.js';
import { colourVerdict, type Style } from './style.js';
import { table } from './table.js';

/** Formats a certificate as lines for people. */
export function certificateReport(certified: CertificateBody, certificate: string, style: Style): string[] {
  const { levels, requirements, runs } = certified;
  return [
    '',
    `${style.strong(certified.target)}: ${runs.length} runs, seed ${certified.seed}, runtime ${certified.environment.runtime}`,
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
    ...prefixLines(
      requirements.map(({ verdict }) => colourVerdict(style, verdict, verdict.padEnd('not-measured'.length))),
      table(requirements.map(({ id, level, title, why }) => [`${id}  ${title}`, level, why])),
    ),
    '',
    style.strong('Levels'),
    ...prefixLines(
      levels.map(({ granted }) => (granted ? style.good('granted ') : style.warn('no      '))),
      table(
        levels.map(({ level, why, without }) => [
          level,
          without.length === 0 ? why : `${why}; not claimed: ${without.join(', ')}`,
        ]),
      ),
    ),
    '',
    `${colourVerdict(style, certified.verdict)}: ${certified.why}`,
    `certificate: ${certificate} (check it with: ${commandLine('verify', pathFromHere(certificate))})`,
  ];
}

/** Formats how many of the claimed faults, which the runs tried or could not try, hit at least once. */
export function certifiedHitsLine({ runs }: Pick<CertificateBody, 'runs'>): string {
  const hits = new Map<string, number>();
  for (const { faults, notTried } of runs) {
    for (const { name } of notTried) hits.set(name, hits.get(name) ?? 0);
    for (const { name, hit } of faults) hits.set(name, (hits.get(name) ?? 0) + hit);
  }
  const missed = [...hits].filter(([, hit]) => hit === 0).map(([name]) => name);
  const never = missed.length === 0 ? '' : `; never hit: ${missed.join(', ')}`;
  return `${hits.size - missed.length} of ${hits.size} claimed faults hit${never}`;
}

/** Formats target, verdict and levels of a certificate as one line. */
export function certificateSummary({ target, verdict, granted }: CertificateBody): string {
  const levels = granted.length === 0 ? 'no level' : `level ${granted.join(', ')}`;
  return `${target}, ${verdict}, ${levels}`;
}

function prefixLines(prefixes: readonly string[], rows: readonly string[]): string[] {
  return prefixes.map((head, index) => `  ${head}  ${rows[index] ?? ''}`);
}

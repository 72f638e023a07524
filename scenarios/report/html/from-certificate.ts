import { join } from 'node:path';
import { certificateOf, EXTENSION } from '../../../conformance/certificate/certificate.js';
import { readEvidence } from '../../../conformance/certificate/evidence.js';
import { evaluate } from '../../../conformance/checkers/evaluate.js';
import type { ReportSource } from './source.js';

/**
 * Collects the evidence of a certificate. It evaluates the histories again, as `verify` does; whether the files are
 * those that were certified is for `verify` to say.
 * @param dir folder of the certificate.
 * @throws KitError bad-history (exit code 2) when the evidence is damaged.
 */
export function sourceFromCertificate(dir: string, path: string): ReportSource {
  const evidence = readEvidence(dir);
  const { predicate } = certificateOf(evidence);
  const certified = predicate[EXTENSION];
  const starts = evidence.histories.flatMap(({ events }) =>
    events.filter((event) => event.kind === 'run-started'),
  );
  const ends = evidence.histories.map(({ events }) => events.at(-1)?.atMs ?? 0);
  return {
    command: 'certify',
    target: certified.target,
    protocol: certified.protocol,
    seed: certified.seed,
    kitVersion: certified.kitVersion,
    startedAt: starts[0]?.startedAt ?? null,
    tookMs: ends.reduce((sum, ms) => sum + ms, 0),
    path,
    verdict: certified.verdict,
    why: certified.why,
    requirements: certified.requirements.map(({ id, verdict, why }) => ({ id, verdict, why })),
    unclaimed: certified.unclaimed,
    notTried: evidence.facts.runs.flatMap(({ notTried }) =>
      notTried.map(({ name, why }) => ({ name, why, remedy: 'plugpull doctor says how to get it' })),
    ),
    warnings: certified.warnings ?? [],
    replay: [`plugpull verify ${join(path.endsWith('.json') ? path : join(path, 'certificate.json'))}`],
    power: evidence.facts.power ?? '',
    runs: evidence.histories.map(({ level, events }) => ({
      name: level,
      events,
      evaluation: evaluate(events, evidence.target),
    })),
    habits: [],
    crashStates: undefined,
    recording: '',
  };
}

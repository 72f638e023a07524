import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { certificateOf, EXTENSION } from '../../../conformance/certificate/certificate.js';
import { readEvidence } from '../../../conformance/certificate/evidence.js';
import { evaluate } from '../../../conformance/checkers/evaluate.js';
import { commandLine, pathFromHere } from '../../host/command-line.js';
import { BUNDLE_FILE, readKeptFacts } from './from-directory.js';
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
  // A level that failed keeps the files of its run. They are not certified, and only explain the failure.
  const kept = evidence.histories.map(({ level }) => {
    const runDir = join(dir, 'runs', level);
    return { ...readKeptFacts(runDir, path), bundle: join(runDir, BUNDLE_FILE) };
  });
  const known = kept.flatMap(({ facts }) => facts?.notTried ?? []);
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
      notTried.map(({ name, why }) => ({
        name,
        why,
        remedy:
          known.find((one) => one.name === name)?.remedy ?? `${commandLine('doctor')} says how to get it`,
      })),
    ),
    warnings: certified.warnings ?? [],
    replay:
      certified.verdict === 'pass'
        ? []
        : kept.flatMap(({ facts, bundle }) => [
            ...(existsSync(bundle) ? [commandLine('replay', pathFromHere(bundle))] : []),
            ...(facts?.verdict === 'fail' ? [facts.replay] : []),
          ]),
    power: evidence.facts.power ?? '',
    runs: evidence.histories.map(({ level, events }) => ({
      name: level,
      events,
      evaluation: evaluate(events, evidence.target),
    })),
    habits: kept.flatMap(({ habits }) => habits),
    crashStates: kept.flatMap(({ facts }) => facts?.crashStates ?? [])[0],
    recording: '',
  };
}

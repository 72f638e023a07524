import { dirname } from 'node:path';
import type { CertificateBody } from '../../conformance/certificate/certificate.js';
import type { Verdict } from '../../conformance/checkers/verdict.js';
import { REQUIREMENTS } from '../../conformance/requirements/requirements.js';
import type { CertifyResult } from '../certify/certify.js';
import type { GateResult } from '../gate/result.js';
import { withFixIt } from '../host/fix-it.js';
import type { TimeReport } from '../host/phase-clock.js';
import { certificateReport, certifiedHitsLine } from './certificate-report.js';
import { claimedHitsLine, gateReport } from './gate-report.js';
import type { Style } from './style.js';
import { timeLines } from './time-lines.js';

/** The result of a command, in the form that every reporter reads. */
export interface Outcome {
  command: 'gate' | 'certify';
  target: string;
  /** Target file from the command line; undefined for the default target. */
  file: string | undefined;
  verdict: Verdict;
  why: string;
  requirements: {
    id: string;
    level: string;
    title: string;
    verdict: Verdict;
    why: string;
    /** Proven violations, one line each. */
    violations: string[];
  }[];
  tookMs: number;
  /** Facts that belong beside the result, by name, such as the seed. */
  properties: Record<string, string>;
  /** Directory of the evidence; absent when it was not kept. */
  evidence?: string;
  /** The object that `--json` prints. */
  data: unknown;
  /** Formats the report for people. */
  lines(style: Style): string[];
}

/** Converts the result of a gate. */
export function gateOutcome(result: GateResult, file: string | undefined): Outcome {
  const requirementsById = new Map<string, { title: string; level: string }>(
    REQUIREMENTS.map((one) => [one.id, one]),
  );
  return {
    command: 'gate',
    target: result.target,
    file,
    verdict: result.verdict,
    why: result.why,
    requirements: result.requirements.map(({ id, verdict, why }) => ({
      id,
      level: requirementsById.get(id)?.level ?? '',
      title: requirementsById.get(id)?.title ?? '',
      verdict,
      why,
      violations: violationLines(result, id),
    })),
    tookMs: result.tookMs,
    properties: {
      seed: `${result.seed}`,
      replay: result.replay,
      faults: claimedHitsLine(result),
      ...(result.evidence === null ? {} : { evidence: result.evidence }),
    },
    ...(result.evidence === null ? {} : { evidence: result.evidence }),
    data: { ...result, requirements: withFixIt(result.requirements) },
    lines: (style) => gateReport(result, style),
  };
}

/** Converts the result of a certification. The violations of a requirement are those of all levels. */
export function certifyOutcome(
  { certified, certificate, runs }: CertifyResult,
  file: string | undefined,
): Outcome {
  const times = runs.map(({ level, result }) => ({ level, ...result.time }));
  const data: CertificateBody & { certificate: string; times: ({ level: string } & TimeReport)[] } = {
    ...certified,
    requirements: withFixIt(certified.requirements),
    certificate,
    times,
  };
  const failed = runs.filter(({ result }) => result.verdict === 'fail');
  return {
    command: 'certify',
    target: certified.target,
    file,
    verdict: certified.verdict,
    why: certified.why,
    requirements: certified.requirements.map(({ id, level, title, verdict, why }) => ({
      id,
      level,
      title,
      verdict,
      why,
      violations: runs.flatMap(({ result }) => violationLines(result, id)),
    })),
    tookMs: runs.reduce((sum, { result }) => sum + result.tookMs, 0),
    properties: { seed: `${certified.seed}`, levels: certified.granted.join(', ') || 'none', certificate },
    evidence: dirname(certificate),
    data,
    lines: (style) => [
      ...certificateReport(certified, certificate, style),
      ...times.flatMap(({ level, ...time }) => [style.strong(`Time of ${level}`), ...timeLines(time)]),
      ...failed.map(({ result }) => `run it again: ${result.replay}`),
      ...new Set(runs.flatMap(({ result }) => result.warnings ?? []).map((warning) => `warning: ${warning}`)),
      certifiedHitsLine(certified),
    ],
  };
}

function violationLines({ violations }: Pick<GateResult, 'violations'>, requirement: string): string[] {
  return violations
    .filter((violation) => violation.requirement === requirement)
    .map(({ id, what }) => (id === undefined ? what : `message ${id}: ${what}`));
}

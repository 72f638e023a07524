import { type Evaluation, evaluate } from '../checkers/evaluate.js';
import type { Verdict } from '../checkers/verdict.js';
import { countEvents } from '../history/condense.js';
import type { HistoryEvent } from '../history/events.js';
import { answersOf } from '../history/traces.js';
import { familyOf, type Level, REQUIREMENTS, type RequirementId } from '../requirements/requirements.js';
import { FAULT_NAMES, type Guarantee } from '../target-file/definition.js';
import { type Evidence, type EvidenceFile, sha256 } from './evidence.js';
import { type Grant, grantLevels, type LevelRun } from './grants.js';

/** Key of the kit's own data in the predicate. It is a URI, because in-toto requires this for extensions. */
export const EXTENSION = 'urn:plugpull:certificate:v2';

/** An in-toto ResourceDescriptor. */
interface ResourceDescriptor {
  name: string;
  digest: Record<string, string>;
  annotations?: Record<string, string>;
}

/** Result of one requirement over all runs. */
export interface CertifiedRequirement {
  id: RequirementId;
  level: Level;
  title: string;
  verdict: Verdict;
  why: string;
  /**
   * Levels of the runs that decided the verdict: those that failed the requirement, otherwise those that
   * measured it.
   */
  runs: Level[];
  /** Number of hits by fault in the runs that `runs` names. */
  faultsThatHit: Record<string, number>;
  /** Number of confirmed undelivered messages at each crash of the runs that `runs` names. */
  atRiskAtCrashes: number[];
  seeds: number[];
}

/** One crash of a certified run, with the numbers of messages that were at risk. */
export interface CertifiedCrash {
  injection: number;
  fault: string;
  confirmedUndelivered: number;
  inFlight: number;
  inDelivery: number;
}

/** One run with the faults of one level. Each run has its own history. */
export interface CertifiedRun {
  level: Level;
  verdict: Verdict;
  why: string;
  startedAt: string;
  seed: number;
  faults: { name: string; tried: number; hit: number }[];
  notTried: { name: string; why: string }[];
  confirmed: number;
  crashes: CertifiedCrash[];
  history: { name: string; digest: { sha256: string }; events: number };
  requirements: { id: string; verdict: Verdict; why: string }[];
}

/**
 * The kit's own data in a certificate, under the key EXTENSION: what the target claims, what was measured,
 * and where. in-toto defines all other fields of the certificate.
 */
export interface CertificateBody {
  kitVersion: string;
  /** SHA-256 of the compiled kit that made the runs; absent in certificates of earlier versions. */
  kitSha256?: string;
  target: string;
  protocol: string;
  guarantee: Guarantee;
  verdict: Verdict;
  why: string;
  /** Granted levels. */
  granted: Level[];
  levels: Grant[];
  requirements: CertifiedRequirement[];
  unclaimed: RequirementId[];
  runs: CertifiedRun[];
  /** What weakens the verdicts without changing them, one line each; absent when there is nothing. */
  warnings?: string[];
  /** Machine, runtime and power backend of the runs. */
  environment: { runtime: string; power: string | null; filesystem: string; node: string; kernel: string };
  budgetMs: number;
  seed: number;
}

/** An in-toto Statement v1 with a test result as its predicate. */
export interface Statement {
  _type: 'https://in-toto.io/Statement/v1';
  subject: ResourceDescriptor[];
  predicateType: 'https://in-toto.io/attestation/test-result/v0.1';
  predicate: {
    result: 'PASSED' | 'WARNED' | 'FAILED';
    configuration: ResourceDescriptor[];
    passedTests: string[];
    warnedTests: string[];
    failedTests: string[];
    [EXTENSION]: CertificateBody;
  };
}

const RESULTS = { pass: 'PASSED', 'not-measured': 'WARNED', fail: 'FAILED' } as const;

/**
 * Makes the certificate of the evidence. Every byte follows from the evidence alone, so that a verification can
 * make it again and compare.
 */
export function certificateOf(evidence: Evidence): Statement {
  const certified = certify(evidence);
  const idsWithVerdict = (verdict: Verdict) =>
    certified.requirements.filter((one) => one.verdict === verdict).map(({ id }) => id);
  return {
    _type: 'https://in-toto.io/Statement/v1',
    subject: subjectOf(evidence),
    predicateType: 'https://in-toto.io/attestation/test-result/v0.1',
    predicate: {
      result: RESULTS[certified.verdict],
      configuration: [evidence.factsFile, ...evidence.histories.map(({ file }) => file)].map(descriptor),
      passedTests: idsWithVerdict('pass'),
      warnedTests: idsWithVerdict('not-measured'),
      failedTests: idsWithVerdict('fail'),
      [EXTENSION]: certified,
    },
  };
}

/** Returns the text of a certificate file. */
export function certificateText(statement: Statement): string {
  return `${JSON.stringify(statement, undefined, 2)}\n`;
}

/** Returns the target as a whole, then each of its files, programs and images. */
function subjectOf({ target, targetFiles, facts }: Evidence): ResourceDescriptor[] {
  const files = targetFiles.map(descriptor);
  const programs = facts.programs.map(({ name, path, sha256 }) => ({
    name,
    digest: { sha256 },
    annotations: { path },
  }));
  const images = facts.images.map((image) => ({ ...descriptor(image), annotations: { kind: 'image' } }));
  const all = [...files, ...programs, ...images];
  // Digest of a folder in the format of Go's dirhash, because in-toto defines the name `dirHash` for it.
  const lines = all.map(({ name, digest }) => `${digest.sha256}  ${name}\n`).sort();
  return [{ name: target.name, digest: { dirHash: sha256(lines.join('')) } }, ...all];
}

function descriptor({ name, sha256 }: EvidenceFile): ResourceDescriptor & { digest: { sha256: string } } {
  return { name, digest: { sha256 } };
}

function certify({ facts, target, histories }: Evidence): CertificateBody {
  const evaluated = histories.map(({ level, events, file }) => {
    return { level, history: events, file, evaluation: evaluate(events, target) };
  });
  const runs = evaluated.map(({ file, ...run }) =>
    certifiedRun(run, file, facts.runs.find(({ level }) => level === run.level)?.notTried ?? []),
  );
  const claimed = REQUIREMENTS.filter((requirement) => requirement.isClaimedBy(target));
  const notTried = (level: Level) => notTriedIn(facts, level);
  const requirements = claimed.map((requirement) =>
    certifiedRequirement(requirement, evaluated, runs, notTried(requirement.level)),
  );
  const levels = grantLevels(target, evaluated, notTried);
  const { runtime, power, filesystem, node, kernel } = facts;
  return {
    kitVersion: facts.kitVersion,
    ...(facts.kitSha256 === undefined ? {} : { kitSha256: facts.kitSha256 }),
    target: target.name,
    protocol: target.protocol,
    guarantee: target.guarantee,
    ...overallVerdict(requirements, target.guarantee.faults),
    granted: levels.filter(({ granted }) => granted).map(({ level }) => level),
    levels,
    requirements,
    unclaimed: REQUIREMENTS.filter((one) => !claimed.includes(one)).map(({ id }) => id),
    runs,
    ...(facts.warnings === undefined ? {} : { warnings: facts.warnings }),
    environment: { runtime, power, filesystem, node, kernel },
    budgetMs: facts.budgetMs,
    seed: facts.seed,
  };
}

/** Returns the reason why a level had no run; undefined if it had one, or if no reason is known. */
function notTriedIn({ runs }: Evidence['facts'], level: Level): string | undefined {
  const run = runs.find((one) => one.level === level);
  if (run === undefined || run.hasHistory || run.notTried.length === 0) return undefined;
  return [...new Set(run.notTried.map(({ why }) => why))].join('; ');
}

/**
 * Returns the verdict over all runs. It is stricter than the verdict of a run: each requirement that the
 * claimed faults can measure must be measured, also those whose situation a run cannot force.
 */
function overallVerdict(
  requirements: readonly CertifiedRequirement[],
  faults: readonly string[],
): { verdict: Verdict; why: string } {
  const describeAll = (some: readonly CertifiedRequirement[]) =>
    some.map(({ id, why }) => `${id}: ${why}`).join('; ');
  const failed = requirements.filter(({ verdict }) => verdict === 'fail');
  if (failed.length > 0) return { verdict: 'fail', why: describeAll(failed) };
  const unmeasured = requirements.filter(
    ({ id, verdict }) => verdict === 'not-measured' && canBeMeasured(id, faults),
  );
  if (unmeasured.length > 0) return { verdict: 'not-measured', why: describeAll(unmeasured) };
  const passed = requirements.filter(({ verdict }) => verdict === 'pass').length;
  return {
    verdict: 'pass',
    why: `${passed} of ${requirements.length} claimed requirements measured, all passed`,
  };
}

/** Returns false if the requirement needs a fault that the target does not claim to survive. */
function canBeMeasured(id: RequirementId, faults: readonly string[]): boolean {
  const needs = REQUIREMENTS.find((requirement) => requirement.id === id)?.needs ?? 'any';
  return needs === 'any' || needs.some((fault) => faults.includes(familyOf(fault, FAULT_NAMES) ?? fault));
}

/**
 * Returns the result of one requirement over all runs: fail if a run failed it, otherwise pass if a run
 * measured it. The reason comes from the run of the requirement's own level, if that run decided.
 */
function certifiedRequirement(
  { id, level, title }: (typeof REQUIREMENTS)[number],
  evaluated: readonly LevelRun[],
  runs: readonly CertifiedRun[],
  notTried: string | undefined,
): CertifiedRequirement {
  const findings = evaluated.flatMap((run) => {
    const finding = run.evaluation.findings.find(({ requirement }) => requirement === id);
    return finding === undefined ? [] : [{ level: run.level, ...finding }];
  });
  const verdict = (['fail', 'pass'] as const).find((one) => findings.some((f) => f.verdict === one));
  const decisive = findings.filter((one) => one.verdict === verdict);
  const ofOwnLevel = (all: typeof findings) => all.find((one) => one.level === level) ?? all[0];
  const chosen = verdict === undefined ? ofOwnLevel(findings) : ofOwnLevel(decisive);
  const levels = decisive.map((one) => one.level);
  const decisiveRuns = runs.filter((run) => levels.includes(run.level));
  const faultsThatHit: Record<string, number> = {};
  for (const { faults } of decisiveRuns)
    for (const { name, hit } of faults) if (hit > 0) faultsThatHit[name] = (faultsThatHit[name] ?? 0) + hit;
  return {
    id,
    level,
    title,
    verdict: verdict ?? 'not-measured',
    // If the requirement's own level had no run, that is the reason; the reason from a run of another level
    // would mislead.
    why: (verdict === undefined ? notTried : undefined) ?? chosen?.why ?? 'no run could be made',
    runs: levels,
    faultsThatHit,
    atRiskAtCrashes: decisiveRuns.flatMap(({ crashes }) =>
      crashes.map((crash) => crash.confirmedUndelivered),
    ),
    seeds: decisiveRuns.map(({ seed }) => seed),
  };
}

function certifiedRun(
  { level, history, evaluation }: { level: Level; history: readonly HistoryEvent[]; evaluation: Evaluation },
  file: EvidenceFile,
  notTried: { name: string; why: string }[],
): CertifiedRun {
  const start = history.find((event) => event.kind === 'run-started');
  const atRiskByInjection = new Map<number, Extract<HistoryEvent, { kind: 'at-risk' }>>();
  const faults = new Map<string, { name: string; tried: number; hit: number }>();
  const crashes: CertifiedCrash[] = [];
  let confirmed = 0;
  for (const name of start?.faults ?? []) faults.set(name, { name, tried: 0, hit: 0 });
  for (const event of history) {
    confirmed += answersOf(event).confirmed;
    if (event.kind === 'at-risk') atRiskByInjection.set(event.injection, event);
    if (event.kind !== 'fault') continue;
    const count = faults.get(event.fault) ?? { name: event.fault, tried: 0, hit: 0 };
    faults.set(event.fault, { ...count, tried: count.tried + 1, hit: count.hit + (event.hit ? 1 : 0) });
    if (!event.hit || event.scope === 'none') continue;
    const {
      confirmedUndelivered = 0,
      inFlight = 0,
      inDelivery = 0,
    } = atRiskByInjection.get(event.injection) ?? {};
    crashes.push({
      injection: event.injection,
      fault: event.fault,
      confirmedUndelivered,
      inFlight,
      inDelivery,
    });
  }
  return {
    level,
    verdict: evaluation.verdict,
    why: evaluation.why,
    startedAt: start?.startedAt ?? '',
    seed: start?.seed ?? 0,
    faults: [...faults.values()],
    notTried,
    confirmed,
    crashes,
    history: { name: file.name, digest: { sha256: file.sha256 }, events: countEvents(history) },
    requirements: evaluation.findings.map(({ requirement, verdict, why }) => ({
      id: requirement,
      verdict,
      why,
    })),
  };
}

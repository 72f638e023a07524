import type { Evaluation } from '../checkers/evaluate.js';
import { inFamily, lastMiss } from '../checkers/hits.js';
import type { HistoryEvent } from '../history/events.js';
import { familiesOf, LEVELS, type LevelRule, requirementsOf } from '../requirements/levels.js';
import { familyOf, type Level, REQUIREMENTS, type RequirementId } from '../requirements/requirements.js';
import { FAULT_NAMES, type FaultName, type Guarantee } from '../target-file/definition.js';

/** The run that measured a level, and its evaluation. */
export interface LevelRun {
  level: Level;
  history: readonly HistoryEvent[];
  evaluation: Evaluation;
}

/** Decision about the grant of a level. */
export interface Grant {
  level: Level;
  granted: boolean;
  /** Reason of the decision, one line. */
  why: string;
  /** Optional requirements and faults of the level that the target does not claim. */
  without: string[];
}

/** Requirements that every run of rounds can measure. They must hold under the faults of each level. */
const CORE_REQUIREMENTS = REQUIREMENTS.filter(({ needs, byChance }) => needs === 'any' && !byChance);

/**
 * Decides which levels the runs grant. A level is granted if each of its requirements was measured with
 * messages at risk and passed, each of its faults hit, nothing failed, and its required levels are granted.
 * @param notTried returns the reason why faults of a level could not be tried on this machine; undefined if all
 * could.
 */
export function grantLevels(
  target: { guarantee: Guarantee; verify?: readonly string[] | undefined },
  runs: readonly LevelRun[],
  notTried: (level: Level) => string | undefined,
): Grant[] {
  const grants: Grant[] = [];
  for (const rule of LEVELS) {
    const run = runs.find(({ level }) => level === rule.level);
    const without = unclaimedPartsOf(rule, target.guarantee, run);
    const why = reasonNotGranted(rule, target.guarantee, run, grants, notTried(rule.level));
    grants.push({
      level: rule.level,
      granted: why === undefined,
      why: why ?? 'every requirement of it was measured, at risk, and passed',
      without,
    });
  }
  return grants;
}

/** Returns the reason why the level is not granted; undefined if it is granted. */
function reasonNotGranted(
  rule: LevelRule,
  { faults, cluster }: Guarantee,
  run: LevelRun | undefined,
  earlierGrants: readonly Grant[],
  notTried: string | undefined,
): string | undefined {
  if (rule.needsNodes && cluster === undefined) return 'the target has no nodes';
  const unclaimed = rule.faults.filter((fault) => !faults.includes(fault));
  if (unclaimed.length > 0) return `the target does not claim to survive ${unclaimed.join(', ')}`;
  const missing = rule.requires.find(
    (level) => !earlierGrants.some((grant) => grant.level === level && grant.granted),
  );
  if (missing !== undefined) return `it needs the level ${missing}`;
  if (run === undefined) {
    const none = 'none of its faults could be tried';
    return notTried === undefined ? none : `${none}: ${notTried}`;
  }
  const { findings } = run.evaluation;
  const failed = findings.find(({ verdict }) => verdict === 'fail');
  if (failed) return `${failed.requirement}: ${failed.why}`;
  const missedFamily = familiesOf(rule).find(
    (family) => faults.includes(family) && !familyHit(run.history, family),
  );
  if (missedFamily !== undefined)
    return `${missedFamily} did not hit${lastMiss(run.history, inFamily(missedFamily))}`;
  const ownRequirements = requirementsOf(rule.level);
  if (ownRequirements.length === 0) return 'this version of the kit has no requirement of it';
  for (const requirement of rule.measuredIn === 'rounds'
    ? [...CORE_REQUIREMENTS, ...ownRequirements]
    : ownRequirements) {
    const found = findings.find((finding) => finding.requirement === requirement.id);
    if (found === undefined && !requirement.waivable) return `${requirement.id} is not claimed`;
    if (found?.verdict === 'not-measured') return `${found.requirement} was not measured: ${found.why}`;
  }
  return undefined;
}

function unclaimedPartsOf(
  { level, optionalFaults: also, needsNodes }: LevelRule,
  { faults, cluster }: Guarantee,
  run: LevelRun | undefined,
): string[] {
  if (needsNodes && cluster === undefined) return [];
  const unclaimed = new Set<RequirementId>(run?.evaluation.unclaimed);
  const requirements = requirementsOf(level).flatMap(({ id, waivable }) =>
    waivable && unclaimed.has(id) ? [id] : [],
  );
  return [...requirements, ...also.filter((fault) => !faults.includes(fault))];
}

function familyHit(history: readonly HistoryEvent[], family: FaultName): boolean {
  return history.some(
    (event) => event.kind === 'fault' && event.hit && familyOf(event.fault, FAULT_NAMES) === family,
  );
}

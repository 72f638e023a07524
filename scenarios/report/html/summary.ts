import { REQUIREMENTS } from '../../../conformance/requirements/requirements.js';
import { violationStory } from '../../gate/violation-story.js';
import { commandLine } from '../../host/command-line.js';
import { CRASH_STATES } from './matrix.js';
import type { Basis, Diagnosis, FaultRow, NotMeasured, Summary, Violation } from './model.js';
import { type BuiltRun, isExploration } from './run-model.js';
import type { ReportSource } from './source.js';
import { shorten } from './strings.js';

/** Upper bound of the violations that a report lists. */
const MAX_VIOLATIONS = 500;

/** Makes the first view: the verdict, why, how to see it again, and what it rests on. */
export function summarise(
  source: ReportSource,
  runs: readonly BuiltRun[],
  faults: readonly FaultRow[],
  diagnoses: readonly Diagnosis[],
): Summary {
  const [first] = diagnoses;
  return {
    verdict: source.verdict,
    sentence:
      source.verdict === 'fail' && first !== undefined
        ? `${first.sentence}${violated(source, first)}`
        : source.why,
    replay: source.replay.map((line) => shorten(line)),
    story: storyOf(source, runs),
    notMeasured: notMeasured(source, faults),
    basis: basisOf(source, runs, faults),
    warnings: source.warnings.map((line) => shorten(line)),
    violations: violationsOf(source, runs),
  };
}

/** Names the requirements that a cause violates, and those that failed for another reason. */
function violated({ requirements }: ReportSource, cause: Diagnosis): string {
  const failed = requirements.filter(({ verdict }) => verdict === 'fail').map(({ id }) => id);
  const own = failed.filter((id) => cause.requirements.includes(id));
  if (own.length === 0) return ` (violates ${failed.join(', ')})`;
  const others = failed.filter((id) => !own.includes(id));
  return ` (violates ${own.join(', ')}${others.length === 0 ? '' : `; ${others.join(', ')} failed for another reason`})`;
}

function storyOf({ crashStates, stated }: ReportSource, runs: readonly BuiltRun[]): string[] {
  const smallest = crashStates?.cause?.story ?? stated?.story;
  if (smallest !== undefined && smallest.length > 0) return smallest.map((line) => shorten(line));
  for (const { run } of runs) {
    if (run.evaluation?.verdict !== 'fail') continue;
    const story = violationStory(run.events, run.evaluation);
    if (story.length > 0) return story.map((line) => shorten(line));
  }
  return [];
}

function notMeasured(source: ReportSource, faults: readonly FaultRow[]): NotMeasured[] {
  const requirements = source.requirements
    .filter(({ verdict }) => verdict === 'not-measured')
    .map(({ id, why }) => {
      const needed = REQUIREMENTS.find((one) => one.id === id)?.needs;
      const missing = source.notTried.find(({ name }) => needed !== 'any' && needed?.includes(name) === true);
      const names = needed === undefined || needed === 'any' ? [] : needed;
      return { what: id, why: shorten(why), remedy: missing?.remedy ?? remedyOf(id, names) };
    });
  const untried = source.notTried.map(({ name, why, remedy }) => ({ what: name, why, remedy }));
  const missed = faults
    .filter(({ tried, hit }) => tried > 0 && hit === 0)
    .map(({ name, why }) => ({ what: name, why, remedy: 'use a larger --budget' }));
  return [...requirements, ...untried, ...missed];
}

function remedyOf(id: string, needs: readonly string[]): string {
  if (id === 'PP-13') return `${commandLine('explore')}, with the target file of this run`;
  return needs.length === 0
    ? 'use a larger --budget'
    : `needs a hit of ${needs.join(' or ')}: claim it in guarantee.faults, do not leave it out with --faults, or use a larger --budget`;
}

function basisOf(source: ReportSource, runs: readonly BuiltRun[], faults: readonly FaultRow[]): Basis {
  const stated = source.stated?.figures ?? {};
  const figure = (name: string) =>
    runs.length === 0
      ? (stated[name] ?? 0)
      : runs.reduce(
          (sum, { run }) =>
            sum + Math.max(0, ...(run.evaluation?.findings ?? []).map(({ figures }) => figures[name] ?? 0)),
          0,
        );
  let counts = { submitted: 0, confirmed: 0, rejected: 0, indefinite: 0, delivered: 0, rounds: 0 };
  // Messages of an exploration are not messages of the rounds before it.
  const rounds = runs.filter((built) => !isExploration(built));
  const counted = rounds.length > 0 ? rounds : runs;
  for (const { run } of counted)
    for (const event of run.events) {
      if (event.kind === 'submitted') counts.submitted += 1;
      else if (event.kind === 'answered') counts[event.outcome] += 1;
      else if (event.kind === 'delivered') counts.delivered += 1;
      else if (event.kind === 'installed') counts.rounds += 1;
      else if (event.kind === 'uneventful') {
        counts.confirmed += event.confirmed;
        counts.rejected += event.rejected;
        counts.indefinite += event.indefinite;
        counts.delivered += event.delivered;
        counts.submitted += event.confirmed + event.rejected + event.indefinite;
      }
    }
  if (runs.length === 0) {
    const { submitted = 0, confirmed = 0, rejected = 0, indefinite = 0, delivered = 0, rounds = 0 } = stated;
    counts = { submitted, confirmed, rejected, indefinite, delivered, rounds };
  }
  // Crash states are counted as states.
  const statesFault = faults.findIndex(({ name }) => name === CRASH_STATES);
  const injections = runs.flatMap(({ model }) =>
    model.injections.filter(({ fault }) => fault !== statesFault),
  );
  const hits = injections.filter(({ hit }) => hit);
  const { atRisk: statedAtRisk = 0, states = 0 } = stated;
  return {
    ...counts,
    // As the report in text counts them: what may still come is not lost.
    lost: figure('lost'),
    notDelivered: figure('notDelivered'),
    duplicates: figure('duplicates'),
    corrupted: figure('corrupted'),
    faultsClaimed: source.stated?.claimedHits?.claimed ?? source.claimed?.length ?? faults.length,
    faultsHit: source.stated?.claimedHits?.hit ?? hitCount(source, faults),
    injections: runs.length === 0 ? faults.reduce((sum, { tried }) => sum + tried, 0) : injections.length,
    injectionsHit: runs.length === 0 ? faults.reduce((sum, { hit }) => sum + hit, 0) : hits.length,
    atRiskTotal: hits.reduce((sum, { atRisk }) => sum + atRisk, 0),
    atRiskMost: Math.max(0, ...hits.map(({ atRisk }) => atRisk)),
    statesJudged: runs.length === 0 ? states : figure('crashStates'),
    statesAtRisk: runs.length === 0 ? (states === 0 ? 0 : statedAtRisk) : figure('statesAtRisk'),
  };
}

/** Counts the claimed faults that hit. A fault of one service, such as kill-one:server, counts for its base name. */
function hitCount({ claimed }: ReportSource, faults: readonly FaultRow[]): number {
  const hits = faults.filter(({ hit }) => hit > 0).map(({ name }) => name);
  const names = new Set(hits.map((name) => name.replace(/:.*/, '')));
  return claimed === undefined ? hits.length : claimed.filter((name) => names.has(name)).length;
}

function violationsOf({ stated }: ReportSource, runs: readonly BuiltRun[]): Violation[] {
  if (runs.length === 0)
    return (stated?.violations ?? []).slice(0, MAX_VIOLATIONS).map(({ requirement, id, what }) => ({
      requirement,
      what: shorten(what),
      message: id ?? null,
      run: -1,
      messageIndex: -1,
    }));
  const all = runs.flatMap(({ run, messageIndex }, index) =>
    (run.evaluation?.findings ?? [])
      .filter(({ verdict }) => verdict === 'fail')
      .flatMap(({ requirement, violations }) =>
        violations.map(({ id, what }) => {
          const at = id === undefined ? undefined : messageIndex.get(id);
          return {
            requirement,
            what: shorten(what),
            message: id ?? null,
            run: at === undefined ? -1 : index,
            messageIndex: at ?? -1,
          };
        }),
      ),
  );
  return all.slice(0, MAX_VIOLATIONS);
}

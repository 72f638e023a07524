import { existsSync, lstatSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { parseBoundedJson } from '../../../conformance/bounded-json.js';
import { CHECKERS, type Evaluation, evaluate } from '../../../conformance/checkers/evaluate.js';
import { KitError, messageOf } from '../../../conformance/errors.js';
import type { HistoryEvent } from '../../../conformance/history/events.js';
import { readHistory } from '../../../conformance/history/reader.js';
import { limit } from '../../../conformance/limits.js';
import { readRegularFile } from '../../../conformance/read-file.js';
import type { FileHabit } from '../../../faults/tracing/file-habits.js';
import { EXPLORATION_FOLDER, RUN_FACTS_FILE, type RunFacts, readRunFacts } from '../../bundle/run-facts.js';
import { claimedFaultNames } from '../../gate/select-faults.js';
import { commandLine, pathFromHere } from '../../host/command-line.js';
import type { ReportSource } from './source.js';
import { shorten } from './strings.js';

const HISTORY_FILE = 'history.jsonl';
const HABITS_FILE = 'file-habits.json';
/** Requirement that an exploration judges. */
const STATES_REQUIREMENT = 'PP-13';
/** Name of the bundle in a directory of evidence. */
export const BUNDLE_FILE = 'bundle.tar.gz';

const Habits = z.array(
  z.object({
    pattern: z.string(),
    writers: z.array(z.string()),
    syncers: z.array(z.string()),
    renamedFrom: z.array(z.string()),
    renamers: z.array(z.string()),
    writes: z.number().exactOptional(),
    syncs: z.number().exactOptional(),
  }),
);

/** What a bundle knows and its evidence may not: the evidence of an older kit has no facts. */
export interface BundleContext {
  /** Claims of the target. */
  target: Parameters<typeof evaluate>[1] & { name: string; protocol: string };
  seed: number;
  kitVersion: string;
  command: ReportSource['command'];
}

/**
 * Collects the evidence of a gate, an exploration or a sweep.
 * @param path the directory or the bundle, as the user named it.
 * @throws KitError bad-history (exit code 2) when the evidence is damaged or is none.
 */
export function sourceFromDirectory(dir: string, path: string, context?: BundleContext): ReportSource {
  requireRegular(join(dir, HISTORY_FILE), path);
  const events = readHistory(join(dir, HISTORY_FILE));
  const { facts, habits } = readKeptFacts(dir, path);
  const target = facts?.target ?? context?.target;
  if (target === undefined)
    throw new KitError(
      'bad-history',
      `${path}: expected the file run.json beside the history: this evidence is of an older kit; make the report of its bundle`,
    );
  const started = events.find((event) => event.kind === 'run-started');
  const command = facts?.command ?? context?.command ?? 'gate';
  const own = command === 'explore' ? evaluateStates(events, target, facts) : evaluate(events, target);
  const explored = command === 'gate' ? readExploration(dir, path, own, target) : undefined;
  const evaluation = explored === undefined ? own : withExploration(own, explored.evaluation);
  // The facts may weaken a pass, such as with a fault that was asked for and never hit. They never hide a failure.
  const stated = evaluation.verdict === 'fail' || facts === undefined ? evaluation : facts;
  const bundle =
    context === undefined
      ? [join(dir, BUNDLE_FILE), join(dir, EXPLORATION_FOLDER, BUNDLE_FILE)].find((file) => existsSync(file))
      : path;
  const recorded = explored === undefined ? dir : join(dir, EXPLORATION_FOLDER);
  const requirements = evaluation.findings.map(({ requirement, verdict, why }) => ({
    id: requirement,
    verdict,
    why,
  }));
  return {
    command,
    target: target.name,
    protocol: target.protocol,
    seed: facts?.seed ?? context?.seed ?? started?.seed ?? null,
    kitVersion: facts?.kitVersion ?? context?.kitVersion ?? started?.kitVersion ?? '',
    startedAt: started?.startedAt ?? null,
    tookMs: facts?.tookMs ?? events.at(-1)?.atMs ?? null,
    path,
    verdict: stated.verdict,
    why: stated.why,
    requirements,
    unclaimed: evaluation.unclaimed,
    ...(command === 'gate' ? { claimed: claimedFaultNames(target) } : {}),
    notTried: facts?.notTried ?? [],
    warnings: facts?.warnings ?? [],
    replay:
      stated.verdict === 'pass'
        ? []
        : [
            ...(bundle === undefined ? [] : [commandLine('replay', pathFromHere(bundle))]),
            ...(facts === undefined ? [] : [facts.replay]),
          ],
    power: facts?.power ?? '',
    runs:
      explored === undefined
        ? [{ name: '', events, evaluation }]
        : [
            { name: 'rounds', events, evaluation: own },
            { name: 'crash states', events: explored.events, evaluation: explored.evaluation },
          ],
    habits,
    crashStates: explored?.crashStates ?? facts?.crashStates,
    recording: existsSync(join(recorded, 'recording.json')) && context === undefined ? recorded : '',
  };
}

/** The exploration of a gate: its history, the evaluation of it, and what it knows of its log. */
interface GateExploration {
  events: readonly HistoryEvent[];
  evaluation: Evaluation;
  crashStates: RunFacts['crashStates'];
}

/**
 * Reads the exploration that a gate made after its rounds; undefined when it made none, or when it did not end. It has a
 * history of its own, so the history of the rounds says nothing of it.
 */
function readExploration(
  dir: string,
  path: string,
  { findings }: Evaluation,
  target: Parameters<typeof evaluate>[1],
): GateExploration | undefined {
  const folder = join(dir, EXPLORATION_FOLDER);
  if (lstatSync(folder, { throwIfNoEntry: false })?.isDirectory() !== true) return undefined;
  if (!findings.some(({ requirement }) => requirement === STATES_REQUIREMENT)) return undefined;
  const { facts } = readKeptFacts(folder, path);
  if (facts?.command !== 'explore') return undefined;
  requireRegular(join(folder, HISTORY_FILE), path);
  const events = readHistory(join(folder, HISTORY_FILE));
  return { events, evaluation: evaluateStates(events, target, facts), crashStates: facts.crashStates };
}

/** Puts the finding of an exploration in the place of that of the rounds. */
function withExploration(own: Evaluation, explored: Evaluation): Evaluation {
  const findings = own.findings.map(
    (finding) => explored.findings.find(({ requirement }) => requirement === finding.requirement) ?? finding,
  );
  return explored.verdict === 'fail' && own.verdict !== 'fail'
    ? { ...own, findings, verdict: 'fail', why: explored.why }
    : { ...own, findings };
}

/**
 * Reads what a run keeps beside its history: its facts, and what a traced run has shown.
 * @throws KitError bad-history (exit code 2) when the facts are damaged, or are no regular file.
 */
export function readKeptFacts(
  dir: string,
  path: string,
): { facts: RunFacts | undefined; habits: FileHabit[] } {
  for (const name of [RUN_FACTS_FILE, HABITS_FILE])
    if (lstatSync(join(dir, name), { throwIfNoEntry: false }) !== undefined)
      requireRegular(join(dir, name), path);
  return { facts: readRunFacts(dir), habits: readHabits(dir) };
}

/**
 * Evaluates an exploration: the only requirement that it judges is that of crash states. The history does not say what
 * makes an exploration without a violation prove nothing, such as too few states, so its facts may weaken a pass.
 */
function evaluateStates(
  events: readonly HistoryEvent[],
  target: Parameters<typeof evaluate>[1],
  facts: Pick<RunFacts, 'verdict' | 'why'> | undefined,
): Evaluation {
  const judged = CHECKERS[STATES_REQUIREMENT](events, target.guarantee);
  const finding =
    judged.verdict === 'pass' && facts?.verdict === 'not-measured'
      ? { ...judged, verdict: facts.verdict, why: facts.why.replace(`${STATES_REQUIREMENT}: `, '') }
      : judged;
  const { verdict, why } = finding;
  return { verdict, why: `${STATES_REQUIREMENT}: ${why}`, findings: [finding], unclaimed: [] };
}

/** Reads what a traced run has shown; nothing when there was none, or when the file is damaged. */
function readHabits(dir: string): FileHabit[] {
  try {
    return Habits.parse(parseBoundedJson(readRegularFile(join(dir, HABITS_FILE), limit('json-bytes'))));
  } catch {
    return [];
  }
}

/** Evidence may come from a stranger: a link could lead to a file of this user, and a pipe would block. */
function requireRegular(file: string, path: string): void {
  try {
    const stats = lstatSync(file);
    if (stats.isFile()) return;
  } catch (error) {
    throw new KitError(
      'bad-history',
      `${path}: expected evidence with the file ${HISTORY_FILE}, a bundle, a certificate or a result of --json: ${shorten(messageOf(error), 200)}`,
      { cause: error },
    );
  }
  throw new KitError('bad-history', `${file}: expected a regular file`);
}

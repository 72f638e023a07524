import { readdirSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import type { Target } from '../../conformance/target-file/definition.js';
import { removeTree } from '../../faults/files/remove-tree.js';
import { type Bundle, originOf, writeBundle } from '../bundle/bundle.js';
import type { GateCase } from '../bundle/manifest.js';
import { describeTarget } from '../bundle/target.js';
import { violationStory } from '../gate/violation-story.js';
import { attempt } from '../host/attempt.js';
import { makePassage } from '../host/directories.js';
import type { Registry } from '../host/registry.js';
import type { Schedule } from '../round/schedule.js';
import { chooseRuntime } from '../runtime/choice/runtimes.js';
import { type RepeatOptions, type Repetition, RUN_PREFIX, repeat } from './repeat.js';
import { type ReplayVerdict, verdictOf } from './replay-verdict.js';
import { describeSchedule, shrinkSchedule } from './shrink-schedule.js';

export interface ReplayOptions {
  target: Target;
  runtime: GateCase['runtime'];
  /** Number of runs; fewer if the budget is used up before. */
  runs: number;
  /** Upper bound of all runs together, with those of `shrink`. The last one may take its drain longer. */
  budgetMs: number;
  shrink: boolean;
  registry: Registry;
  signal: AbortSignal;
  progress(line: string): void;
}

/** Result of a replay: the object that `--json` prints. */
export interface ReplayResult extends ReplayVerdict {
  bundle: string;
  target: string;
  kind: 'gate' | 'crash-state';
  requirements: string[];
  runs: number;
  reproduced: number;
  /**
   * Reproducer of the violation: a description of the schedule, or the address of the crash state. After
   * `--shrink` it is the smaller one.
   */
  reproducer: string;
  /** The story of the failure that came again. Empty when the runs of a schedule did not fail again. */
  story: string[];
  /**
   * What the replay judged: a whole run of the target, or only its recovery. The disk of a crash state was written
   * by the target that the exploration recorded, so no change of how a target writes can change its replay.
   */
  judged: 'run' | 'recovery';
  /**
   * Command line that records a new run, and so also tests how the target writes; null when the replay was such a
   * run.
   */
  recordAnew: string | null;
  /** Path of the bundle of the smaller reproducer; null when none was requested or found. */
  shrunkBundle: string | null;
}

/** Runs the round of a bundle repeatedly. With `shrink`, also makes its schedule smaller. */
export async function replayGate(
  bundle: Bundle,
  gate: GateCase,
  options: ReplayOptions,
): Promise<ReplayResult> {
  const { manifest } = bundle;
  const { target, budgetMs, signal, progress, registry, runs } = options;
  const runtime = await (await chooseRuntime(options.runtime)).prepare(target, progress);
  try {
    const repeatOptions: RepeatOptions = {
      target,
      runtime,
      gate,
      registry,
      signal,
      progress,
      requirements: manifest.requirements,
      dir: dirname(bundle.dir),
      endMs: performance.now() + budgetMs,
    };
    const schedule = scheduleIn(gate);
    const repetition = await repeat(repeatOptions, schedule, runs, options.shrink ? 'first' : 'all');
    const small =
      options.shrink && repetition.first
        ? await shrinkSchedule(repeatOptions, schedule, repetition)
        : undefined;
    const last = small?.repetition ?? repetition;
    const shrunkBundle =
      small && small.schedule !== schedule
        ? ((await attempt('the smaller bundle could not be written', () =>
            writeShrunk(bundle, gate, target, small.schedule, last),
          )) ?? null)
        : null;
    const story = last.first === undefined ? [] : violationStory(last.first.events, last.first.evaluation);
    last.first?.drop();
    return {
      bundle: bundle.file,
      target: target.name,
      kind: 'gate',
      requirements: manifest.requirements,
      ...verdictOf(repetition, manifest.requirements, target.name),
      runs: repetition.runs,
      reproduced: repetition.reproduced,
      reproducer: describeSchedule(small?.schedule ?? schedule),
      story,
      judged: 'run',
      recordAnew: null,
      shrunkBundle,
    };
  } finally {
    await runtime.close?.();
  }
}

/**
 * Returns the schedule of a bundle without keys whose value is undefined, which `Schedule` does not allow.
 */
export function scheduleIn({ schedule }: GateCase): Schedule {
  return JSON.parse(JSON.stringify(schedule)) as Schedule;
}

async function writeShrunk(
  bundle: Bundle,
  gate: GateCase,
  target: Target,
  schedule: Schedule,
  { first }: Repetition,
): Promise<string | null> {
  if (first === undefined) return null;
  const { file, manifest } = bundle;
  const to = resolve(file).replace(/(\.tar\.gz)?$/, '.small.tar.gz');
  const parts = {
    target: describeTarget(target),
    seed: manifest.seed,
    requirements: first.evaluation.findings
      .filter(({ verdict }) => verdict === 'fail')
      .map(({ requirement }) => requirement),
    why: first.evaluation.why,
    summary: violationStory(first.events, first.evaluation),
    case: { ...gate, schedule },
  };
  await writeBundle(to, first.dir, parts, originOf(bundle));
  return to;
}

/**
 * Registers and makes the directory for everything that a replay makes.
 * @param root state directory.
 * @returns the path of the directory.
 */
export function createWorkspaceDir(registry: Registry, root: string): string {
  const path = join(root, 'replays', registry.runId);
  registry.made({ kind: 'directory', path });
  makePassage(path);
  return path;
}

/**
 * Removes from the directory of a replay that failed with an error everything except the runs with their logs,
 * which the error may name.
 * @returns whether something stays.
 */
export function keepLogs(path: string): boolean {
  const isRun = (name: string) => name.startsWith(RUN_PREFIX);
  const names = readdirSync(path);
  for (const name of names) if (!isRun(name)) removeTree(join(path, name));
  return names.some(isRun);
}

/** Removes the directory of a replay with everything in it. */
export function removeWorkspaceDir(registry: Registry, path: string): void {
  removeTree(path);
  registry.gone({ kind: 'directory', path });
}

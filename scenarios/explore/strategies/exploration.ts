import type { AtRiskMessages } from '../../../conformance/checkers/crash-states.js';
import type { Recorder } from '../../../conformance/history/recorder.js';
import type { Target } from '../../../conformance/target-file/definition.js';
import type { Recording } from '../../../faults/crash-states/materialise.js';
import type { Filesystem } from '../../../faults/power/filesystem.js';
import type { Registry } from '../../host/registry.js';
import type { PreparedRuntime } from '../../runtime/runtime.js';
import type { WorkerPool } from '../inspectors/worker-pool.js';
import type { RecordedRun } from '../record/record.js';
import type { SavedRecording } from '../record/saved-recording.js';
import type { StateWorkspace } from '../states/workspace.js';
import type { StrategyName } from './strategy-run.js';

/** The options of `runExplore`. */
export interface ExploreOptions {
  target: Target;
  runtime: PreparedRuntime;
  filesystem?: Filesystem;
  seed: number;
  budgetMs: number;
  /** A saved recording. With it, the target is not run under load again. */
  savedRecording?: SavedRecording;
  /**
   * Upper bound for the number of different disks that are inspected, of the run and of each recovery that
   * is cut.
   */
  maxStates?: number;
  /** Directory of the evidence. Undefined: in the state directory, and removed after a pass. */
  out: string | undefined;
  /** True keeps the evidence after a pass too. */
  keep: boolean;
  /** Returns the command line that repeats the exploration. */
  replay(seed: number): string;
  signal: AbortSignal;
  progress(line: string): void;
}

/** Data that all parts of a running exploration share. */
export interface Exploration {
  options: ExploreOptions;
  registry: Registry;
  recorder: Recorder;
  /** Directory of the evidence. */
  dir: string;
  run: RecordedRun;
  recording: Recording;
  workspace: StateWorkspace;
  pool: WorkerPool;
  atRisk: AtRiskMessages;
  /**
   * Path of an image of the recorded disk on which the first `baseAt` writes and flushes of the log are done.
   */
  base: string;
  baseAt: number;
  /** SHA-256 of each message, in the order of the messages' bits in `heldBits` of an inspection. */
  digests: string[];
  /** Id of each message, in the order of the messages' bits in `heldBits` of an inspection. */
  ids: string[];
  /** Command of the target's restore program; undefined when the target has none. */
  restore: string[] | undefined;
  /** Number of processors; `workerCount` computes the number of workers from it. */
  workers: number;
  /** End of the time, in ms of `performance.now()`. */
  endMs: number;
}

/**
 * Upper bound for the mounting workers beyond one per processor. Each of them is two processes and a mount,
 * and a machine with many processors does not need as many extra workers.
 */
const MAX_EXTRA_WORKERS = 8;

/**
 * Returns the number of workers. A worker that mounts waits for its disk more than half of the time, so
 * there are more of them than processors.
 */
export function workerCount({ workers }: Exploration, strategy: StrategyName): number {
  return strategy === 'mount' ? workers + Math.min(workers + 1, MAX_EXTRA_WORKERS) : workers;
}

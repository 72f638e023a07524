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

export interface ExploreOptions {
  target: Target;
  runtime: PreparedRuntime;
  filesystem?: Filesystem;
  seed: number;
  budgetMs: number;
  /** A recording that was kept: the target is not run under load again. */
  savedRecording?: SavedRecording;
  /** No more than so many different disks are looked at. */
  maxStates?: number;
  /** Where the evidence goes; undefined: the state directory, and dropped when all passed. */
  out: string | undefined;
  keep: boolean;
  /** The line that runs it again. */
  replay(seed: number): string;
  signal: AbortSignal;
  progress(line: string): void;
}

/** An exploration under way. */
export interface Exploration {
  options: ExploreOptions;
  registry: Registry;
  recorder: Recorder;
  dir: string;
  run: RecordedRun;
  recording: Recording;
  workspace: StateWorkspace;
  pool: WorkerPool;
  atRisk: AtRiskMessages;
  /** The device when the entries before `baseAt` are on the medium. */
  base: string;
  baseAt: number;
  /** SHA-256 and id of the messages in the order of their bits. */
  digests: string[];
  ids: string[];
  /** The target's own program that restores; undefined when it has none. */
  restore: string[] | undefined;
  workers: number;
  endMs: number;
}

/** Each is two processes and a mount: a machine of many processors need not be filled to the last. */
const MAX_EXTRA_WORKERS = 8;

/** A worker that mounts waits for its disk more than half of the time. */
export function workerCount({ workers }: Exploration, strategy: StrategyName): number {
  return strategy === 'mount' ? workers + Math.min(workers + 1, MAX_EXTRA_WORKERS) : workers;
}

import type { Target } from '../../conformance/target-file/definition.js';
import type { Filesystem } from '../../faults/power/filesystem.js';
import type { Pace } from '../round/pace.js';
import type { PowerBackendName } from '../runtime/power-backends.js';
import type { PreparedRuntime } from '../runtime/runtime.js';
import type { GateExploration } from './crash-states.js';
import type { Selection } from './select-faults.js';

/** Options of a gate whose faults are selected. */
export interface GateOptions {
  target: Target;
  runtime: PreparedRuntime;
  /** Runtime of the rounds of power cuts, with the dm-flakey of its kernel. Default: `runtime`. */
  powerRuntime?: PreparedRuntime | undefined;
  selection: Selection;
  /** Profile that chose the runtimes and the backend, as in `--profile`. Default: none did. */
  profile?: string | undefined;
  /** Backend that cuts the power of this machine's disks. */
  power: PowerBackendName;
  /** Filesystem of the disk whose power is cut; default: ext4 without mount options. */
  filesystem?: Filesystem;
  seed: number;
  budgetMs: number;
  /** Number of rounds after which the gate stops; undefined: the budget alone decides. */
  maxRounds?: number;
  /** The gate stops after this many injections; undefined: the budget alone decides. */
  maxInjections?: number;
  /**
   * Number of kinds of faults in each round. Default: a number that keeps rounds short and lets the rounds of
   * the budget try all kinds.
   */
  faultsPerRound?: number;
  /** What earlier gates of the same target have shown about its durations. Default: nothing is known. */
  pace?: Pace;
  /**
   * Directory of the evidence. Undefined: a directory in the state directory, which is removed when
   * everything passed.
   */
  out: string | undefined;
  /** True saves the evidence even if everything passed. */
  keep: boolean;
  /**
   * Explores crash states after the rounds, in a part of the budget. Undefined: the gate explores none, and `unexplored`
   * may say why.
   */
  exploration?: GateExploration;
  /** Why the gate explores no crash states, as the end of a sentence. Default: a general reason. */
  unexplored?: string;
  /**
   * Returns the command line that runs the gate again, given the seed of the round that failed.
   * @param only names of the faults of that round, if they were not all faults of the gate.
   */
  replay(seed: number, only?: readonly string[]): string;
  signal: AbortSignal;
  progress(line: string): void;
  /** Gets a function that describes what the run is doing at the moment of the call, in one line. */
  watch?(describe: () => string): void;
}

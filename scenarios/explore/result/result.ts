import type { Verdict } from '../../../conformance/checkers/verdict.js';
import type { TimeReport } from '../../host/phase-clock.js';
import type { StrategyFigures, StrategyName } from '../strategies/strategy-run.js';
import type { ClusterFamily } from './cluster-family.js';
import type { EXPLORED_MINIMUM } from './minimum.js';

/** Numbers that a pass needs; see `EXPLORED_MINIMUM`. */
type Minimum = { [Name in keyof typeof EXPLORED_MINIMUM]: number };

/** The broken crash state that is easiest to understand, with an explanation. */
export interface SmallestState {
  /**
   * Address of the state. The address is enough to make the disk again from the image and the log of the
   * evidence.
   */
  state: string;
  /**
   * For a cut of a recovery: the recovery's log in the evidence, and its number of entries. Null otherwise.
   */
  recovery: { log: string; end: number } | null;
  /** Ids of the messages that the state must hold and does not hold. */
  missing: string[];
  /** Lines of text that explain the cut, and the loss of the first missing message. */
  story: string[];
}

/** The result of an exploration: the object that `--json` prints, and the input of the readable report. */
export interface ExploreResult {
  target: string;
  verdict: Verdict;
  why: string;
  requirements: { id: string; verdict: Verdict; why: string }[];
  /** Facts that weaken the verdict without changing it, one line each. */
  warnings: string[];
  /** Number of crash states that were judged, each by an inspection of its disk or of an equal disk. */
  states: number;
  /** Number of different disks that were made, recovered and inspected. */
  distinct: number;
  /** Different disks per second of the time in which they were made, recovered and inspected. */
  statesPerSecond: number;
  /** Number of messages that at least one state has lost. */
  lost: number;
  /** Number of broken states. */
  broken: number;
  /** Number of states in which a confirmed message was at risk. */
  atRisk: number;
  strategies: Partial<Record<StrategyName, StrategyFigures>>;
  /**
   * States whose filesystem the kernel refused. They prove nothing about the target: the superblock of ext4
   * spans two sectors, and a cut may tear it. They are not counted in `states`.
   */
  unmountable: { states: number; first: { state: string; why: string } | null };
  /** States for which the time ended before there was an answer. They are not counted in `states`. */
  timedOut: { states: number; first: string | null };
  /**
   * Number of recoveries that were recorded, and of the crash states and different disks that the cuts of
   * these recoveries gave.
   */
  recoveries: { recorded: number; states: number; distinct: number };
  submitted: number;
  confirmed: number;
  /** Number of entries of the log, and the position of the first cut. */
  log: { entries: number; from: number };
  /**
   * How much of the log was explored: the number of positions of the cut at which a state was judged (`cuts`), of
   * those that the log has under load (`allCuts`), and their share from 0 to 1. A pass with less than `minimum` is
   * not measured.
   */
  explored: { cuts: number; allCuts: number; share: number; minimum: Minimum };
  /**
   * Only for a target with `nodes`: their names, the judged states by the rule that chose them, and how many states of all
   * nodes were made and started per minute. `explored` and `log` then count instants, and the requests to all disks.
   */
  cluster?: { nodes: string[]; families: Partial<Record<ClusterFamily, number>>; startsPerMinute: number };
  seed: number;
  tookMs: number;
  /** The duration of the run and of each of its phases, and how much of it came after the end of the budget. */
  time: TimeReport;
  /** Command line that repeats the exploration. */
  replay: string;
  /** Directory with the history, the image and the log; null when it was removed. */
  evidence: string | null;
  /** Path of the bundle for `plugpull replay`; null when nothing failed. */
  bundle: string | null;
  violations: { requirement: string; id?: string; what: string }[];
  smallest: SmallestState | null;
}

/** The result of an exploration without what is known only at its very end. */
export type UnfinishedResult = Omit<ExploreResult, 'evidence' | 'bundle' | 'tookMs' | 'time'>;

import type { Verdict } from '../../../conformance/checkers/verdict.js';
import type { StrategyFigures, StrategyName } from '../strategies/strategy-run.js';

/** A crash state that shows the violation, and why. */
export interface SmallestState {
  /** To make it again from the image and the log of the evidence. */
  state: string;
  /** Where the state is a cut of a recovery: its log in the evidence, and how many entries of it count. */
  recovery: { log: string; end: number } | null;
  /** Ids of the messages that are gone. */
  missing: string[];
  /** What became of the first of them, in a few lines. */
  story: string[];
}

/** What an exploration found: the one object of `--json`, and all that the readable report needs. */
export interface ExploreResult {
  target: string;
  verdict: Verdict;
  why: string;
  requirements: { id: string; verdict: Verdict; why: string }[];
  /** Crash states that were judged, each by a look at it or at an equal disk. */
  states: number;
  /** Different disks that were made, recovered and looked at. */
  distinct: number;
  /** Different ones, over the time that they took. */
  statesPerSecond: number;
  /** Messages that some state has lost. */
  lost: number;
  /** States in which something is wrong. */
  broken: number;
  /** States in which something was at risk. */
  atRisk: number;
  strategies: Partial<Record<StrategyName, StrategyFigures>>;
  /**
   * States whose filesystem the kernel refused, which says nothing about the target: the superblock of ext4 spans two sectors, and
   * a cut may tear it. They are not among `states`.
   */
  unmountable: { states: number; first: { state: string; why: string } | null };
  /** States for which the program that restores had no answer when the time was up. They are not among `states`. */
  timedOut: { states: number; first: string | null };
  /** Recoveries that were recorded, and the states of their cuts. */
  recoveries: { recorded: number; states: number; distinct: number };
  submitted: number;
  confirmed: number;
  /** Entries of the log, and the first of which states were made. */
  log: { entries: number; from: number };
  seed: number;
  tookMs: number;
  /** The line that runs it again. */
  replay: string;
  /** Where history, image and log are kept; null when they were dropped. */
  evidence: string | null;
  /** The file that `plugpull replay` takes; null when nothing failed. */
  bundle: string | null;
  violations: { requirement: string; id?: string; what: string }[];
  smallest: SmallestState | null;
}

import type { Verdict } from '../../../conformance/checkers/verdict.js';
import type { FileHabit } from '../../../faults/tracing/file-habits.js';
import type { CrashStateFacts } from '../../bundle/run-facts.js';
import type { ReportModel } from './model.js';
import type { ReportRun } from './run-model.js';

/** Everything that a report is made from, however it was stored. */
export interface ReportSource {
  command: ReportModel['command'];
  target: string;
  protocol: string;
  seed: number | null;
  kitVersion: string;
  startedAt: string | null;
  tookMs: number | null;
  /** Path that the user named, or of the evidence. */
  path: string;
  verdict: Verdict;
  why: string;
  /** Claimed requirements with their verdicts. */
  requirements: { id: string; verdict: Verdict; why: string }[];
  unclaimed: string[];
  /** Names of all claimed faults, also of those that the run left out; undefined when they are not known. */
  claimed?: readonly string[];
  /** Faults that were not tried, with the reason and what to do. */
  notTried: { name: string; why: string; remedy: string }[];
  warnings: string[];
  /** Command lines that run the failure again, the best one first. */
  replay: string[];
  power: string;
  runs: ReportRun[];
  habits: readonly FileHabit[];
  crashStates: CrashStateFacts | undefined;
  /** Directory of a saved recording, for the commands that make a state again; empty when there is none. */
  recording: string;
  /** Only without histories: counts and violations that a result file states. */
  stated?: {
    figures: Record<string, number>;
    violations: { requirement: string; id?: string | undefined; what: string }[];
    causes: string[];
    story: string[];
    faults: { name: string; tried: number; hit: number }[];
    /** Number of claimed faults, and of those that hit; undefined when the result does not say it. */
    claimedHits?: { claimed: number; hit: number } | undefined;
  };
}

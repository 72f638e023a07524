/*
 * The data of the HTML report. The program that writes the file and the viewer in the browser share these types.
 * Types only, so that both can import it. `columns.ts` has the functions that make and read the columns.
 *
 * The model is JSON, packed by gzip, encoded as base64, in `<script type="application/octet-stream" id="plugpull-data">`.
 *
 * Every string may come from a target or a stranger. A viewer shows strings as text, never as markup.
 * A time is a *tick*: a tenth of a millisecond since the start of its run. An index points into the list that the
 * docstring names; -1 means none.
 */

/** Version of the model. The viewer shows a message for another version. */
export type ReportFormat = 1;

export type ReportVerdict = 'pass' | 'fail' | 'not-measured';

/** Ascending integers, each as the difference to the one before; the first one as it is. Read with `fromDeltas`. */
export type Deltas = number[];

export interface ReportModel {
  format: ReportFormat;
  kitVersion: string;
  /** Command that made the evidence. */
  command: 'gate' | 'certify' | 'explore' | 'sweep' | 'replay';
  /** Name of the target. */
  target: string;
  /** Protocol of the target; empty when it is not known. */
  protocol: string;
  seed: number | null;
  /** Wall-clock time at which the run began, ISO 8601; null when it is not known. */
  startedAt: string | null;
  tookMs: number | null;
  /** Path of the evidence from which the report was written, as the user knows it. */
  source: string;
  summary: Summary;
  requirements: RequirementRow[];
  faults: FaultRow[];
  /** The cells of the matrix requirement × fault. A pair that is not listed is unrelated. */
  matrix: MatrixCell[];
  /** Causes that the evidence proves or suggests, the most certain first. Empty after a pass. */
  diagnoses: Diagnosis[];
  /** One run for a gate, an exploration or a sweep; two for a gate that explored; one per level for a certificate. */
  runs: RunModel[];
  exploration: ExplorationModel | null;
  /** Where the user finds the usual causes: path and anchor; empty when nothing failed. */
  fixIt: string;
}

/** View 1: the verdict. */
export interface Summary {
  verdict: ReportVerdict;
  /** What failed, what was not measured, or that everything passed: one sentence. */
  sentence: string;
  /** Shell commands that run the failure again, the best one first. Empty after a pass. */
  replay: string[];
  /** The story of the first violation, one line each; times are already formatted. */
  story: string[];
  notMeasured: NotMeasured[];
  /** What the verdict rests on. */
  basis: Basis;
  warnings: string[];
  violations: Violation[];
}

export interface NotMeasured {
  /** Requirement or fault. */
  what: string;
  why: string;
  /** What the user can do to have it measured; empty when nothing is known. */
  remedy: string;
}

/** Numbers on which a verdict rests. */
export interface Basis {
  rounds: number;
  submitted: number;
  confirmed: number;
  rejected: number;
  indefinite: number;
  delivered: number;
  lost: number;
  /** Confirmed messages that were not delivered in time, of which it is not known whether they are lost. */
  notDelivered: number;
  duplicates: number;
  corrupted: number;
  /** Faults that were claimed, and those of them that hit. */
  faultsClaimed: number;
  faultsHit: number;
  /** Injections in all, and those that hit. */
  injections: number;
  injectionsHit: number;
  /** Confirmed messages that were not consumed yet, summed over all crashes; and the most of them at one crash. */
  atRiskTotal: number;
  atRiskMost: number;
  /** Crash states that were judged, and those with a message at risk; 0 without an exploration. */
  statesJudged: number;
  statesAtRisk: number;
}

export interface Violation {
  requirement: string;
  /** What was violated, one line. */
  what: string;
  /** Id of the message; null when the violation names none. */
  message: string | null;
  /** Index into `runs`, and into the messages of this run; -1 when the message is in no run of the report. */
  run: number;
  messageIndex: number;
}

/** View 2: a row of the matrix. */
export interface RequirementRow {
  id: string;
  level: string;
  title: string;
  verdict: ReportVerdict | 'not-claimed';
  why: string;
  /** Anchor of the requirement on the page that explains how to fix it. */
  anchor: string;
}

/** View 2: a column of the matrix. */
export interface FaultRow {
  name: string;
  tried: number;
  hit: number;
  /** Sum of the confirmed, not yet consumed messages at the hits of this fault. */
  atRisk: number;
  /** Power backend; empty for other faults. */
  backend: string;
  /** Why it did not hit, or was not tried; empty when it hit. */
  why: string;
  /** What to do to have it tried; empty when nothing is known. */
  remedy: string;
}

/** View 2: what one fault showed about one requirement. */
export interface MatrixCell {
  /** Index into `requirements`. */
  requirement: number;
  /** Index into `faults`. */
  fault: number;
  hits: number;
  atRisk: number;
  /** Number of violations that this fault caused, as far as the evidence tells. */
  violations: number;
  /** `fail` when a violation is assigned to this fault. */
  verdict: ReportVerdict;
}

/** Kinds of cause. A viewer may show an icon; the sentence says everything. */
export type Cause =
  /** Data were written and never synced before the confirmation. */
  | 'not-synced'
  /** A sync came, but after the confirmation. */
  | 'synced-late'
  /** The file was created or renamed, and its directory was not synced before the confirmation. */
  | 'directory-not-synced'
  /** The file was renamed before its content was synced. */
  | 'renamed-before-sync'
  /** Bytes were in no write: not sent to the disk, or in an unreadable form. */
  | 'not-written'
  /** Everything was synced; the target does not find it at its start. */
  | 'not-recovered'
  /** The target removed or changed the file while calls failed. */
  | 'target-removed-it'
  /** A part of a message was stored: its producer hung up while it sent it. */
  | 'stored-in-part'
  /** A message came after a later one of its producer. */
  | 'reordered'
  /** No disk lost anything, and after a cut of links the nodes kept another history. */
  | 'history-replaced'
  /** A node confirmed a message while it was cut off from the majority. */
  | 'minority-confirmed'
  /** The nodes that were left did not confirm again in time. */
  | 'no-election'
  | 'unknown';

/** The cause of a violation. */
export interface Diagnosis {
  cause: Cause;
  /** `proven`: the evidence shows it in this run. `observed`: a traced run of the same target showed the habit. */
  certainty: 'proven' | 'observed';
  /** One sentence that names the file, the missing call and the message. */
  sentence: string;
  /** Facts that led to it, one line each, in the order in which they happened. */
  facts: string[];
  /** What to change, one sentence with the missing call; empty when nothing is known. */
  fix: string;
  /** Path of the file below the data directory; empty when none is named. */
  file: string;
  /** Service that writes the file; empty when it is not known. */
  service: string;
  /** Ids of the failed requirements that it violates; empty when they are not known. */
  requirements: string[];
  /** Where the user finds other causes of such violations: path and anchor; empty when no requirement is known. */
  fixIt: string;
  /** Number of messages that this cause explains. */
  messages: number;
  /** Id of one of these messages, for the timeline; null when none is known. */
  example: string | null;
  /** Index into `runs` and into `injections` of the run; -1 when it concerns none, as for an exploration. */
  run: number;
  injection: number;
}

/** Views 3, 4 and 6: one history. */
export interface RunModel {
  /** Name of the run, for example the level of a certificate; empty when there is one run. */
  name: string;
  /** Last tick of the run. */
  endTick: number;
  /** Strings that repeat, such as answers; columns point here. */
  strings: string[];
  rounds: { round: number; tick: number }[];
  lanes: Lane[];
  injections: Injection[];
  messages: MessageColumns;
  producers: ProducerLoss[];
  fileCuts: FileCut[];
  /** Set when the history was too long: number of events that are counted and not shown. */
  omittedEvents: number;
}

/** View 3: a lane of the timeline. */
export interface Lane {
  /** Service, or `service on node`. */
  name: string;
  kind: 'service' | 'node';
  /** Times at which it ran. Columns of the same length, ascending by start. */
  startTick: Deltas;
  /** Length in ticks; -1 when it ran to the end of the run. */
  ticks: number[];
  incarnation: number[];
  /** Index into `strings`: how it ended, for example `SIGKILL by the kit`. */
  end: number[];
  /** 1 when the kit caused the end, 0 when the service exited by itself. */
  expected: number[];
}

/** View 3: one injection of a fault. */
export interface Injection {
  tick: number;
  /** Tick at which its effect began; `tick` when it began at once. The band runs to `healedTick` or `recoveredTick`. */
  sinceTick: number;
  /** Tick at which its effect ended, or the target was ready again; -1 when it never did. */
  healedTick: number;
  recoveredTick: number;
  /** Time of the recovery in ms; -1 when there was none. */
  recoveryMs: number;
  /** What the target did instead of becoming ready; empty when it became ready. */
  recoveryFailure: string;
  /** Index into `faults` of the model. */
  fault: number;
  number: number;
  round: number;
  hit: boolean;
  scope: 'none' | 'some-processes' | 'all-processes' | 'machine';
  services: string[];
  detail: string;
  atRisk: number;
  inFlight: number;
  inDelivery: number;
  /** Number of messages that this injection took. */
  lost: number;
}

/** Outcome of a message by number. */
export type OutcomeCode = 0 | 1 | 2 | 3;

/**
 * Views 3 and 4: every message of a run, one entry per message in each column, in order of submit. `-1` means that
 * the event did not occur.
 */
export interface MessageColumns {
  id: string[];
  producer: number[];
  round: number[];
  sizeBytes: number[];
  submittedTick: Deltas;
  /** Ticks between the submit and the answer. */
  answeredTicks: number[];
  /** 0 confirmed, 1 rejected, 2 indefinite, 3 no answer. */
  outcome: OutcomeCode[];
  /** Index into `strings`: the answer. */
  answer: number[];
  /** Ticks between the submit and the first delivery, and the consumption. */
  deliveredTicks: number[];
  consumedTicks: number[];
  /** Number of deliveries. */
  deliveries: number[];
  /** Index into `injections`: the injection that took the message. */
  lostBy: number[];
  /**
   * Sum of: 1 lost, 2 delivered changed, 4 delivered twice without permission, 8 named by another violation.
   */
  flags: number[];
  /** Sparse: deliveries after the first one, ascending by message. Columns of the same length. */
  later: { message: Deltas; ticks: number[] };
  /** Sparse: refusals, and the reasons as indexes into `strings`. */
  refused: { message: Deltas; ticks: number[]; why: number[] };
}

/** View 4: what one producer lost in one round, seen in the order of its confirmed messages. */
export interface ProducerLoss {
  producer: number;
  round: number;
  confirmed: number;
  lost: number;
  /** Place of the losses in that order. `all` is more than one message, all lost; `scattered` is none of the others. */
  where: 'none' | 'prefix' | 'middle' | 'suffix' | 'scattered' | 'all';
}

/** View 6: the files at one power cut or tear. */
export interface FileCut {
  /** Index into `injections`. */
  injection: number;
  files: FileAtCut[];
  /** Number of files that are not listed. */
  more: number;
}

export interface FileAtCut {
  /** Path below the data directory. */
  file: string;
  sizeBytes: number;
  /** Null: the file is gone. */
  sizeAfterBytes: number | null;
  /** Old path, when the cut undid a rename; null otherwise. */
  nameAfter: string | null;
  /** Bytes that no sync had covered. */
  cacheBytes: number;
  /** Bytes in the cache of the drive that no flush had covered. */
  driveBytes: number;
  /** Number of messages that were in it and are now in no file. */
  messages: number;
  /** Ids of some of them. */
  examples: string[];
  /** State of the content and of the name of the file at the cut. */
  content: 'synced' | 'not-synced' | 'unknown';
  name: 'synced' | 'not-synced' | 'unknown';
  /** What it means, one sentence; for example that a rename was undone because its directory was not synced. */
  sentence: string;
  /** What the service does to this file, from a traced run; empty when it is not known. */
  habit: string;
}

/** View 5: an exploration of crash states. */
export interface ExplorationModel {
  /** Index into `runs` of the run that was recorded. */
  run: number;
  /** Number of requests in the log, and the first position of a cut. */
  entries: number;
  from: number;
  /** Every position at which a state was judged. Columns of the same length. */
  cuts: {
    position: Deltas;
    states: number[];
    failed: number[];
    /** Confirmed messages that every state of this cut must hold. */
    atRisk: number[];
  };
  /** Positions of the flushes; empty when the log is not in the evidence. */
  flushes: Deltas;
  /** Confirmations: the position, and the index into the messages of `run`. */
  confirmations: { position: Deltas; message: number[] };
  /** Broken states, bounded; the smallest one first. */
  broken: BrokenState[];
  /** Number of broken states that are not listed. */
  moreBroken: number;
  blamed: BlamedSync | null;
}

/** View 5: the sync that would have saved the message. */
export interface BlamedSync {
  /** Writes that needed it, by position in the log. */
  writes: number[];
  /** Position at which the message was confirmed: the sync was needed between the writes and this position. */
  confirmedAt: number;
  /** Position of the first flush after these writes, which came too late; null when none came. */
  flushAt: number | null;
  files: string[];
  message: string | null;
  sentence: string;
}

/** View 5: one state that fails. */
export interface BrokenState {
  /** Address of the state. */
  address: string;
  /** Position of the cut. */
  position: number;
  /** Number of messages that it must hold and does not hold, and some of them. */
  missing: number;
  examples: string[];
  /** Why the target did not recover; empty when it did. */
  recoveryFailure: string;
  /** Writes that had not reached the medium. */
  missingWrites: number[];
  /** Files to which these writes belong, or that the state lacks. */
  files: { file: string; what: string }[];
  /** Shell command that makes this state again; empty when the evidence has no recording. */
  replay: string;
}

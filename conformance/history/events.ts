/**
 * The history of a run: every submit, outcome, delivery, fault and recovery, in the order in which the kit
 * saw them. It is data (JSON lines), and the only thing besides disk evidence that a checker looks at.
 *
 * `atMs` is milliseconds since the start of the run, from a monotonic clock.
 */
export type Outcome = 'confirmed' | 'rejected' | 'indefinite';

/** What a crash took with it: nothing, some processes of the target, or the whole machine's memory. */
export type CrashScope = 'none' | 'some-processes' | 'all-processes' | 'machine';

/**
 * Version of the format of a history. It grows when a key is renamed or changes its meaning; a reader refuses every other
 * version.
 */
export const HISTORY_FORMAT = 2;

export interface RunStarted {
  kind: 'run-started';
  atMs: number;
  /** `HISTORY_FORMAT` of the version that wrote the history. */
  format: number;
  target: string;
  protocol: string;
  seed: number;
  faults: string[];
  /** Wall clock, ISO 8601, for people only: no checker reads it. */
  startedAt: string;
  kitVersion: string;
}

/** The target begins anew in an empty directory: whatever it held before is no longer asked of it. */
export interface Installed {
  kind: 'installed';
  atMs: number;
  /** 1 for the first installation of the run, then 2, 3, … */
  round: number;
}

export interface ServiceStarted {
  kind: 'service-started';
  atMs: number;
  service: string;
  /** 1 for the first process of this service in the run, then 2, 3, … */
  incarnation: number;
}

export interface ServiceExited {
  kind: 'service-exited';
  atMs: number;
  service: string;
  incarnation: number;
  code: number | null;
  signal: string | null;
  /** True when the kit made it exit (a fault, or the end of the run). */
  expected: boolean;
}

export interface Submitted {
  kind: 'submitted';
  atMs: number;
  /** Unique in the run; the message carries it. */
  id: string;
  producer: number;
  sizeBytes: number;
  /** The SHA-256 that the message carries of itself, hex. */
  digest: string;
  recipients: number;
  /** Which kind of message of the workload, for example `tiny`, `8bit`, `forged-record`. */
  shape: string;
}

export interface Answered {
  kind: 'answered';
  atMs: number;
  id: string;
  outcome: Outcome;
  /** The target's own words, or the error of the connection; one line. */
  detail: string;
}

export interface Delivered {
  kind: 'delivered';
  atMs: number;
  /** Order of arrival in the run, from 1. */
  sequence: number;
  /** The id that the message carries, or null when none could be read from it. */
  id: string | null;
  sizeBytes: number;
  /** The same of what came, without what a relay may put in front; equal only if it came unchanged. */
  digest: string;
  /**
   * Which recipients of the message this copy was for, as numbers from 0: a relay may split a message among
   * transactions, and only the same recipient twice is a duplicate.
   */
  recipients: number[];
}

/** The receiver accepted a delivery. */
export interface Consumed {
  kind: 'consumed';
  atMs: number;
  sequence: number;
  id: string | null;
  /**
   * `answered` (pull): the target confirmed the consumption; the same message once more is a duplicate.
   * `unanswered` (pull): the target was gone before it answered; the message may rightly come again, or not.
   * `accepted` (push): the acceptance was written to a live session; whether the target knows tells `Settled`.
   */
  how: 'answered' | 'unanswered' | 'accepted';
}

/** The receiver did not accept a delivery: the message is still the target's. */
export interface Refused {
  kind: 'refused';
  atMs: number;
  sequence: number;
  id: string | null;
  /** True when the receiver said that it never will accept: the target may then put the message aside. */
  permanent: boolean;
  /** What was answered, or why nothing could be; one line. */
  detail: string;
}

/** Push: what became of accepted deliveries at the end of their session, or as it went on. */
export interface Settled {
  kind: 'settled';
  atMs: number;
  sequences: number[];
  /**
   * `known`: the target ended the session in order, or went on as far as it only can when it has recorded these.
   * `broken`: the session broke before; these were in delivery and may rightly come again.
   */
  how: 'known' | 'broken';
}

export interface FaultInjected {
  kind: 'fault';
  atMs: number;
  /** Name of the fault, as in `--faults`. */
  fault: string;
  /** Number of this injection in the run, from 1. */
  injection: number;
  /** A miss is a fault that changed nothing: no process to kill, no byte at risk. */
  hit: boolean;
  scope: CrashScope;
  services: string[];
  /** What exactly was done; one line, enough to do it again by hand. */
  detail: string;
  /** True when the stored index (or its like) was lost or damaged on purpose. */
  indexDamaged: boolean;
  /** Ids whose stored bytes were damaged on purpose: they may be missing, never wrong. */
  rotted: string[];
  /** For so long before the crash, in milliseconds, the disk had been refusing writes; what was to be noted then could not be. */
  failingMs: number;
}

export interface FaultHealed {
  kind: 'healed';
  atMs: number;
  fault: string;
  injection: number;
}

/** What was at stake at the moment of a crash; a run whose crashes had nothing at risk proves nothing. */
export interface AtRisk {
  kind: 'at-risk';
  atMs: number;
  injection: number;
  /** Confirmed and not yet consumed: the target must still have these. */
  confirmedUndelivered: number;
  /** Submitted and not yet answered. */
  inFlight: number;
  /** Delivered, and acceptance not yet known to be recorded by the target: may come twice. */
  inDelivery: number;
}

export interface Recovered {
  kind: 'recovered';
  atMs: number;
  injection: number;
  /** From the first restart to the moment when every service was ready again. */
  tookMs: number;
}

export interface RecoveryFailed {
  kind: 'recovery-failed';
  atMs: number;
  injection: number;
  waitedMs: number;
  detail: string;
}

/** What the target's own `verify` command said about its stored state. */
export interface Inspected {
  kind: 'inspected';
  atMs: number;
  ok: boolean;
  /** One line each. */
  problems: string[];
  /** Ids or numbers that the target itself names as damaged and kept aside. */
  keptAside: number;
  live: number;
}

/** The end of the wait for outstanding deliveries. */
export interface Drained {
  kind: 'drained';
  atMs: number;
  waitedMs: number;
  /** True when the target said, or showed by silence after the last one, that nothing more will come. */
  complete: boolean;
}

/** Where in the log of the disk's writes something was seen; for the crash states that are made from that log. */
export interface LogPosition {
  kind: 'log-position';
  atMs: number;
  id: string;
  /** `confirmed`: the confirmation had come by then. `taken`: no receiver had been offered the message before. */
  what: 'confirmed' | 'offered';
  /** How many entries of the log were complete then. */
  entries: number;
}

/** A disk that a power cut may have left was made, the target recovered on it, and what it then held was looked at. */
export interface StateExplored {
  kind: 'state-explored';
  atMs: number;
  /** Its address in the log, and behind a `>` in the log of a recovery from it; enough to make it again. */
  state: string;
  /** So many entries of the log were complete at the cut. */
  prefix: number;
  /** So many may have begun to reach the medium: `prefix`, or one more. */
  entriesBegun: number;
  /** How it was looked at. */
  strategy: 'image' | 'mount' | 'target';
  /** False when the target did not get up again. */
  recovered: boolean;
  /** Which messages it held, whole: one bit for each submitted id in order, the lowest of each byte first; base64. */
  heldBits: string;
  /** Messages that it held and that were never submitted, or not as it held them. */
  wrongCount: number;
  /** One line; empty when there is nothing to say. */
  detail: string;
  /**
   * So many more states have led to all that is said here; they are not named. Only where the target has recovered and
   * nothing is wrong: most of the disks that a cut may leave lead to the same messages.
   */
  equivalentStates: number;
}

export interface RunEnded {
  kind: 'run-ended';
  atMs: number;
  how: 'completed' | 'violation' | 'interrupted';
}

export type HistoryEvent =
  | RunStarted
  | Installed
  | ServiceStarted
  | ServiceExited
  | Submitted
  | Answered
  | Delivered
  | Consumed
  | Refused
  | Settled
  | FaultInjected
  | FaultHealed
  | AtRisk
  | Recovered
  | RecoveryFailed
  | Inspected
  | Drained
  | LogPosition
  | StateExplored
  | RunEnded;

/** An event as it is handed to the recorder, which adds the time; distributes over the union. */
export type Untimed<E> = E extends HistoryEvent ? Omit<E, 'atMs'> : never;

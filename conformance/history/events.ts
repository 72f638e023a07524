/*
 * The history of a run: every submit, outcome, delivery, fault and recovery, in the order in which the kit
 * observed them. It is stored as JSON lines, and it is the only input of a checker.
 *
 * `atMs` is the time since the start of the run, in milliseconds of a monotonic clock.
 */

/** Outcome of a submit: the target answered yes, answered no, or did neither. */
export type Outcome = 'confirmed' | 'rejected' | 'indefinite';

/** Extent of a crash: nothing, some processes of the target, all of them, or the machine with its memory. */
export type CrashScope = 'none' | 'some-processes' | 'all-processes' | 'machine';

/**
 * Version of the format of a history. It increases when a key is renamed or changes its meaning. A reader
 * rejects every other version.
 */
export const HISTORY_FORMAT = 2;

/** The run began. */
export interface RunStarted {
  kind: 'run-started';
  atMs: number;
  /** `HISTORY_FORMAT` of the kit version that wrote the history. */
  format: number;
  target: string;
  protocol: string;
  seed: number;
  faults: string[];
  /** Wall-clock time, ISO 8601. It is for people only; no checker reads it. */
  startedAt: string;
  kitVersion: string;
}

/**
 * The target was installed in an empty directory. Messages of earlier installations are no longer expected from
 * it.
 */
export interface Installed {
  kind: 'installed';
  atMs: number;
  /** 1 for the first installation of the run, then 2, 3, … */
  round: number;
  /** Names of the nodes, in the order of the target file. Absent for a target without `nodes`. */
  nodes?: string[];
}

/** A process of a service was started. */
export interface ServiceStarted {
  kind: 'service-started';
  atMs: number;
  service: string;
  /** 1 for the first process of this service in the run, then 2, 3, … */
  incarnation: number;
}

/** A process of a service exited. */
export interface ServiceExited {
  kind: 'service-exited';
  atMs: number;
  service: string;
  incarnation: number;
  code: number | null;
  signal: string | null;
  /** True when the kit caused the exit (by a fault, or at the end of the run). */
  expected: boolean;
}

/** A producer began to submit a message. */
export interface Submitted {
  kind: 'submitted';
  atMs: number;
  /** Id of the message: unique in the run, and contained in the message. */
  id: string;
  producer: number;
  sizeBytes: number;
  /** SHA-256 of the message, which the message carries in a header line; hex. */
  digest: string;
  recipients: number;
  /** Shape of the message in the workload, for example `tiny`, `8bit`, `forged-record`. */
  shape: string;
}

/** A submit ended. */
export interface Answered {
  kind: 'answered';
  atMs: number;
  id: string;
  outcome: Outcome;
  /** The answer of the target, or the error of the connection; one line. */
  detail: string;
  /** Node to which the message was submitted. Absent for a target without `nodes`. */
  node?: string;
}

/** A whole message arrived at the receiver. */
export interface Delivered {
  kind: 'delivered';
  atMs: number;
  /** Number of the delivery in order of arrival, from 1. */
  sequence: number;
  /** Message id that the message carries; null when it carries no readable one, or one of another run. */
  id: string | null;
  sizeBytes: number;
  /**
   * Digest of the message as it arrived, without header lines that a relay added; it equals the digest of the
   * submit only if the message is unchanged.
   */
  digest: string;
  /**
   * Recipients of this delivery, as numbers from 0. A relay may split the recipients of a message among
   * several transactions; only a second delivery to the same recipient is a duplicate.
   */
  recipients: number[];
  /** Place and content of the first difference from what was submitted, one line. Absent without a difference. */
  difference?: string;
  /** Node that delivered the message. Absent for a target without `nodes`. */
  node?: string;
}

/** The receiver accepted a delivery. */
export interface Consumed {
  kind: 'consumed';
  atMs: number;
  sequence: number;
  id: string | null;
  /**
   * Pull means that the receiver asks for messages, push (`smtp`, `amqp`) that the target sends them.
   * `answered` (pull): the target confirmed the consumption; another delivery is a duplicate.
   * `unanswered` (pull): the target was gone before it answered; another delivery is allowed and not required.
   * `accepted` (push): the acceptance was written to a live session; `Settled` reports whether the target knows
   * it.
   */
  how: 'answered' | 'unanswered' | 'accepted';
}

/** The receiver did not accept a delivery. The target is still responsible for the message. */
export interface Refused {
  kind: 'refused';
  atMs: number;
  sequence: number;
  id: string | null;
  /** True when the receiver refused permanently. The target may then put the message aside. */
  permanent: boolean;
  /** The answer of the receiver, or the reason why it could not answer; one line. */
  detail: string;
}

/**
 * Only for protocols in which the target sends the messages (`smtp`, `amqp`): the session of accepted
 * deliveries ended, or continued so far that the target must have recorded the deliveries.
 */
export interface Settled {
  kind: 'settled';
  atMs: number;
  sequences: number[];
  /**
   * `known`: the target ended the session in order, or continued the session so far that it must have
   * recorded these deliveries. `broken`: the session broke before one of the two; these messages were in
   * delivery and may come again.
   */
  how: 'known' | 'broken';
}

/** A file of the data directory that a crash took something from, compared with the file that the target saw. */
export interface LostFile {
  /** Path below the data directory. */
  file: string;
  /** Size before the crash, in bytes. */
  sizeBytes: number;
  /** Size after the crash, in bytes; null: the file is gone. */
  sizeAfterBytes: number | null;
  /** Path after the crash, when the crash undid a rename; null: the path is the same, or the file is gone. */
  nameAfter: string | null;
  /** Bytes that were only in the page cache: no sync that covers them had returned. */
  cacheBytes: number;
  /** Bytes that the drive had in its cache and lost. */
  driveBytes: number;
  /** Ids of the messages at risk that were in this file and are in no file any more. */
  messages: string[];
}

/** System calls that a fault made fail. */
export interface FailedCalls {
  /** Time in ms between the first failure and the fault event. */
  sinceMs: number;
  calls: {
    service: string;
    call: string;
    /** Path below the data directory, or an absolute path; null when it is not known. */
    path: string | null;
    /** Name of the error, such as EIO. */
    error: string;
    count: number;
  }[];
}

/** A fault was injected; it hit or missed. */
export interface FaultInjected {
  kind: 'fault';
  atMs: number;
  /** Name of the fault, as in `--faults`. */
  fault: string;
  /** Number of this injection in the run, from 1. */
  injection: number;
  /**
   * False for a miss: the injection changed nothing, because there was no process to kill or no byte to damage.
   */
  hit: boolean;
  scope: CrashScope;
  /** Names of the services. In a target with nodes, `SERVICE@NODE`. */
  services: string[];
  /** Nodes that the injection harmed. Absent for a target without `nodes`. */
  nodes?: string[];
  /** Exact description of the injection, one line; enough to repeat it by hand. */
  detail: string;
  /** True when the stored index, or a similar file, was lost or damaged on purpose. */
  indexDamaged: boolean;
  /**
   * Ids of messages whose stored bytes were damaged on purpose. They may be missing; they must not be delivered
   * changed.
   */
  rotted: string[];
  /**
   * Time before the crash in which data may not have reached the disk, because its writes or syncs failed, or
   * because the disk had stopped, in milliseconds. What the target recorded in this time may be lost. 0 for other faults.
   */
  failingMs: number;
  /** Files that the crash took something from. Absent when the kit did not compare the files. */
  lostFiles?: LostFile[];
  /** Files with messages that the target itself removed or changed while calls failed. */
  destroyedFiles?: LostFile[];
  /** Calls that the fault made fail. Absent for other faults. */
  failed?: FailedCalls;
}

/** The effect of a fault ended, for example when a paused process continued. */
export interface FaultHealed {
  kind: 'healed';
  atMs: number;
  fault: string;
  injection: number;
}

/**
 * What the kit itself does to the nodes of a cluster from this moment on, until the next event of this kind. The event is
 * recorded before each change, also before a cut is healed, and once more after the last one. A second event with the same
 * lists says that the change is complete.
 */
export interface ClusterState {
  kind: 'cluster-state';
  atMs: number;
  injection: number;
  /** Nodes whose processes the kit has killed or stopped, and has not started again. */
  down: string[];
  /** Links that carry nothing, each in one direction: `[from, to]`. */
  cut: [from: string, to: string][];
  /** Nodes on which the target's `promote` command has run in this injection. Absent when it ran on none. */
  promoted?: string[];
}

/** Messages at risk at the moment of a crash. A run with nothing at risk at any crash proves nothing. */
export interface AtRisk {
  kind: 'at-risk';
  atMs: number;
  injection: number;
  /** Number of messages that were confirmed and not yet consumed. The target must still have them. */
  confirmedUndelivered: number;
  /** Number of messages that were submitted and not yet answered. */
  inFlight: number;
  /** Number of delivered messages whose acceptance the target may not have recorded yet. They may come again. */
  inDelivery: number;
}

/** The target became ready again after a fault. */
export interface Recovered {
  kind: 'recovered';
  atMs: number;
  injection: number;
  /** Time from the first restart until every service was ready again, in milliseconds. */
  tookMs: number;
}

/** The target did not become ready again within the limit. */
export interface RecoveryFailed {
  kind: 'recovery-failed';
  atMs: number;
  injection: number;
  waitedMs: number;
  detail: string;
}

/** Report of the target's own `verify` command about its stored state. */
export interface Inspected {
  kind: 'inspected';
  atMs: number;
  ok: boolean;
  /** Problems, one line each. */
  problems: string[];
  /** Number of damaged messages that the target reports as kept aside. */
  keptAside: number;
  /** Number of live messages that the target reports; absent when it reports none. */
  live?: number;
  /** Node whose stored state was inspected. Absent for a target without `nodes`. */
  node?: string;
}

/** The end of the wait for outstanding deliveries. */
export interface Drained {
  kind: 'drained';
  atMs: number;
  waitedMs: number;
  /**
   * True when the target delivered nothing for long enough that no further delivery is to be expected. False
   * when deliveries still came at the end of the wait, or when the round was stopped before it.
   */
  complete: boolean;
  /**
   * Time without a delivery, in milliseconds, that the wait allowed while confirmed messages were outstanding.
   * Absent when the round was stopped before the wait, and in histories of earlier versions.
   */
  allowedMs?: number;
  /**
   * Source of `allowedMs`. `claim`: the target claims this time (`guarantee.redeliverySeconds`). `shown`: it follows
   * from the redeliveries and waits that the target has shown. `default`: the target has shown no redelivery, or a
   * very slow one, and the kit's upper bound applies: the target may need longer.
   */
  allowedBy?: 'claim' | 'shown' | 'default';
}

/**
 * `confirmed`: the confirmation of the message had come at this position. `offered`: no receiver had been
 * offered the message before this position.
 */
export interface LogPosition {
  kind: 'log-position';
  atMs: number;
  id: string;
  /**
   * `confirmed`: the confirmation had come by then. `offered`: no receiver had been offered the message before.
   */
  what: 'confirmed' | 'offered';
  /**
   * Number of entries of the log of disk writes that were complete at this position. In a cluster: number of the first
   * instant after a confirmation, or of the last one before an offer. An instant is a moment at which the logs of all nodes
   * had a known length.
   */
  entries: number;
}

/**
 * A crash state was explored: the kit made the disk, the target recovered on it, and the messages on it were
 * inspected.
 */
export interface StateExplored {
  kind: 'state-explored';
  atMs: number;
  /**
   * Address of the state in the log; after a `>` its address in the log of a recovery from it. The address is
   * enough to make the state again. In a cluster it has the number of the instant and the address of each node's disk.
   */
  state: string;
  /** Number of entries of the log of disk writes that were complete at the power cut. In a cluster: number of the instant. */
  prefix: number;
  /**
   * In a cluster: number of the instant, or one more when a write that was under way may be on a disk. Otherwise number of entries of the log of disk writes that may have begun to reach the disk: `prefix`, or one more.
   */
  entriesBegun: number;
  /**
   * Method of inspection: `mount` asks the target's restore program, and `target` starts the target and
   * consumes its messages.
   */
  strategy: 'mount' | 'target';
  /** False when the target did not recover. */
  recovered: boolean;
  /**
   * Messages that the target held whole: one bit per submitted id, in order of submit, lowest bit of each
   * byte first; base64.
   */
  heldBits: string;
  /**
   * Number of messages that the target held and that were never submitted, or were submitted with other
   * content.
   */
  wrongCount: number;
  /** Description of the problem, one line; empty if there is none. */
  detail: string;
  /**
   * Number of further states with the same result as this one, which are not listed. States are merged only
   * if the target recovered and nothing was wrong: most disks that a power cut can leave hold the same
   * messages.
   */
  equivalentStates: number;
}

/** The run ended. */
export interface RunEnded {
  kind: 'run-ended';
  atMs: number;
  how: 'completed' | 'violation' | 'interrupted';
}

/**
 * Stands for the events of messages that need no judgement, in a history that is too long for memory. It is never in a
 * file: a reader makes it, and puts it before the next event that concerns no message. Its counts are numbers of events.
 */
export interface Uneventful {
  kind: 'uneventful';
  atMs: number;
  /** Number of all events that it stands for. */
  events: number;
  confirmed: number;
  /** Number of the confirmed messages that were consumed before they were confirmed. */
  confirmedAfterDelivery: number;
  /** Number of rejected messages, of which none was delivered. */
  rejected: number;
  /** Number of indefinite messages, of which none was delivered. */
  indefinite: number;
  /** Number of deliveries, each unchanged and the only one of its message. */
  delivered: number;
  consumed: number;
}

/** An event as it is written to a file. */
export type WrittenEvent = Exclude<HistoryEvent, Uneventful>;

/** One event of a history. */
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
  | ClusterState
  | AtRisk
  | Recovered
  | RecoveryFailed
  | Inspected
  | Drained
  | LogPosition
  | StateExplored
  | RunEnded
  | Uneventful;

/** An event without its time, which the recorder adds. Distributes over the union. */
export type Untimed<E> = E extends HistoryEvent ? Omit<E, 'atMs'> : never;

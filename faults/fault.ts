/*
 * The contract between faults and the code that runs them. A fault has a name, declares what it needs,
 * injects one failure into a target, proves that the injection hit, and can be healed. It works on processes,
 * files and devices. It does not know the protocol or the data format of a queue.
 */

/**
 * The part of the target that an injection crashed: from no process to the whole machine with its page cache.
 */
export type CrashScope = 'none' | 'some-processes' | 'all-processes' | 'machine';

/** A service of the target as a fault sees it. The interface is the same for every runtime. */
export interface Service {
  readonly name: string;
  /**
   * Returns the ids (in the kit's namespace) of the service's live processes; empty when the service is down.
   */
  pids(): number[];
  /** Sends a signal to every process of the service. Resolves to the number of processes that received it. */
  signal(signal: 'SIGKILL' | 'SIGSTOP' | 'SIGCONT' | 'SIGTERM'): Promise<number>;
  /**
   * Starts the service if it is down. `wrap` is put before the service's command (for example `strace …`).
   */
  start(wrap?: readonly string[], env?: Readonly<Record<string, string>>): Promise<void>;
  /** Resolves when no process of the service is left; rejects after `timeoutMs`. */
  waitForExit(timeoutMs: number): Promise<void>;
}

/** Everything that a fault may use in one injection: the target's services and files, and the workload. */
export interface FaultContext {
  readonly services: readonly Service[];
  /** The directory (or mount point) that holds the target's data. */
  readonly dataDir: string;
  /** The disk below `dataDir`; undefined when its power cannot be cut. */
  readonly powerDisk?: PowerDisk | undefined;
  /** Scratch space of this run, outside `dataDir`. */
  readonly scratchDir: string;
  /** Seeded generator: one seed determines the whole schedule. */
  readonly random: Random;
  /**
   * Files that only make the target faster, and that it must be able to rebuild (globs, relative to
   * `dataDir`).
   */
  readonly indexFiles: readonly string[];
  /** Files that hold messages (globs, relative to `dataDir`). `data-rot` damages no other file. */
  readonly messageFiles: readonly string[];
  /** Files that the target makes anew at each start (globs, relative to `dataDir`). Their loss proves nothing. */
  readonly scratchFiles: readonly string[];
  /**
   * Time in ms from the last start until the target was ready. `kill-recovery` uses it to kill during the
   * next start.
   */
  readonly usualRecoveryMs: number;
  /**
   * Waits for `count` more confirmations, at most for `timeoutMs`. Resolves to which of the two came first.
   */
  waitForConfirms(count: number, timeoutMs: number): Promise<'reached' | 'timeout'>;
  /** Waits for `count` more rejections, at most for `timeoutMs`. Resolves to which of the two came first. */
  waitForRejections(count: number, timeoutMs: number): Promise<'reached' | 'timeout'>;
  /**
   * Turns the flood on or off. While it is on, receivers take nothing and producers send as fast as they can.
   * @param deliveries `held`: receivers answer nothing. `some-refused`: they refuse some first deliveries at once, where
   *   the protocol allows it, so that the target also does what it does after a refused delivery. Default: `held`.
   */
  flood(on: boolean, deliveries?: 'held' | 'some-refused'): void;
  /**
   * Returns the messages that are stored, confirmed and not yet delivered: by message id, a byte string that
   * occurs only in that message. `data-rot` uses these byte strings.
   */
  storedMarks(): ReadonlyMap<string, Buffer>;
  /** Compares the files before and after a crash; undefined when the kit cannot read the data directory. */
  readonly losses?: LossObserver | undefined;
  /**
   * The nodes on which this injection may act. `services` lists the services of all of them. `dataDir`, `powerDisk` and `losses`
   * are those of the first one. A target without `nodes` has one.
   */
  readonly nodes: readonly FaultNode[];
  /** The whole cluster; undefined for a target without `nodes`. */
  readonly cluster?: ClusterContext | undefined;
  /** Syncs that the injections of this run have seen. Undefined: each injection stands for itself. */
  readonly syncSites?: SyncMemory | undefined;
  /** In a replay: the aim of the injection that is repeated; see `Injection`. */
  readonly aim?: Aim | undefined;
  /** Signal that is aborted when the run is interrupted. */
  readonly signal: AbortSignal;
}

/** A machine of the target with its own disk and network address. A target without `nodes` has one, named ''. */
export interface FaultNode {
  readonly name: string;
  /** The services of this node. */
  readonly services: readonly Service[];
  /** The directory (or mount point) that holds the data of this node. */
  readonly dataDir: string;
  /** The disk below `dataDir`; undefined when its power cannot be cut. */
  readonly powerDisk?: PowerDisk | undefined;
  /** Compares the files before and after a crash; undefined when the kit cannot read the data directory. */
  readonly losses?: LossObserver | undefined;
}

/** A link that carries nothing, in one direction. */
export type LinkCut = readonly [from: string, to: string];

/** The network between the nodes of a cluster. The kit itself reaches every node at any time. */
export interface Links {
  /** Replaces all cuts: from now on exactly these links carry nothing. An empty list heals all. */
  cut(links: readonly LinkCut[]): Promise<void>;
  /**
   * Silently cuts the connections that exist between these two nodes, in both directions, while new ones are allowed.
   * `healConnections` lets them go on, so that old packets arrive late.
   */
  cutConnections(a: string, b: string): Promise<void>;
  healConnections(): Promise<void>;
  /** Number of packets that cut links and cut connections have swallowed since the last change. */
  swallowedPackets(): Promise<number>;
  /** Delays or drops packets of a node; undefined where the kernel cannot do it. An empty change removes it. */
  impair?(node: string, how: { delayMs?: number; jitterMs?: number; lossPercent?: number }): Promise<void>;
}

/** The cluster as a fault sees it. */
export interface ClusterContext {
  /** All nodes, in the order of the target file. */
  readonly nodes: readonly FaultNode[];
  readonly links: Links;
  /** Number of nodes that the target claims to be able to lose at the same time. */
  readonly tolerates: number;
  /** Longest time in ms until the nodes that are left confirm again, as the target claims. */
  readonly electionMs: number;
  /**
   * Records which nodes are down and which links are cut from now on. Must be called before each change (with what will be
   * cut) and after the last one (with empty lists). `links.cut` records by itself when it is complete, and before it heals.
   */
  noteState(state: { down: readonly string[]; cut: readonly LinkCut[] }): void;
  /** Starts the services of a node that is down, and does not wait until they are ready. */
  start(node: string): Promise<void>;
  /**
   * Waits for `count` more confirmations by these nodes, at most for `timeoutMs`. Resolves to the number that came.
   */
  waitForConfirmsBy(nodes: readonly string[], count: number, timeoutMs: number): Promise<number>;
  /**
   * Replaces the disk of a node by an empty one. No process of the node may live. With `install`, the install command of the
   * node runs on it.
   */
  replaceDisk(node: string, options: { install: boolean }): Promise<void>;
  /** Runs the target's `promote` command on a node; undefined when the target has none. */
  promote?(node: string): Promise<void>;
}

/** A seeded random generator. */
export interface Random {
  /** Returns an integer from 0 to `below` - 1. */
  int(below: number): number;
  /** Returns a number from 0 (included) to 1 (excluded). */
  real(): number;
  pick<T>(items: readonly T[]): T;
  /** Makes an independent generator, so that the draws of one consumer do not change those of another. */
  fork(name: string): Random;
}

/**
 * The fate of the writes between the last flush and a power cut. `all-lost`: the drive's cache is gone.
 * `prefix`: the drive had written the first few of them, in order. `torn`: as `prefix`, and one more write is
 * there in part.
 */
export type Loss = 'all-lost' | 'prefix' | 'torn';

/** The effect of a power cut, and the time in ms that each step took. */
export interface CutReport {
  /** Number of writes that no flush had covered at the cut. If the number is 0, nothing could be lost. */
  unflushedWrites: number;
  /** One line for people: the position in the log, and what was flushed, lost, kept and torn. */
  detail: string;
  /** Hashes (`pageHash`) of the 4 KiB pages that were in the drive's cache and are lost; undefined: none. */
  lostPages?: ReadonlySet<string>;
  tookMs: { drop: number; image: number; record: number; mount: number };
}

/**
 * A disk whose power can be cut. A cut loses no data that was flushed before it. Of the other data it can lose
 * all or a part: this depends on the power backend and on `Loss`.
 */
export interface PowerDisk {
  /** Name of the power backend, as in `--power`. */
  readonly backend: 'blocklog' | 'flakey';
  /**
   * True when the target runs on the machine that stops: `stop` then kills its processes before anything
   * continues.
   */
  readonly killsTarget: boolean;
  /**
   * Stops the disk and returns the cut point for `cut`. Nothing is written or flushed until `resume`: a
   * process that waits for the disk goes on waiting. An answer that the target gives meanwhile rests on what
   * the disk did before.
   */
  stop(): number | Promise<number>;
  /**
   * Lets the disk continue, so that processes that wait for it can die. `cut` discards what the disk does
   * from here on.
   */
  resume(): void | Promise<void>;
  /**
   * Puts the disk into the state after a power cut at this cut point, and mounts it again. No process may use
   * the disk any more.
   * @throws Error when something still uses the disk, or when it cannot be mounted again.
   */
  cut(cutPoint: number, loss: Loss, random: Random): Promise<CutReport>;
  /** Lets the disk answer nothing for a while; undefined when the power backend cannot do that. */
  readonly stall?: DiskStall | undefined;
  /** Injector of write errors; undefined when the power backend cannot make writes fail. */
  readonly writeErrors: WriteErrorInjector | undefined;
  /** Reason why the disk no longer works: its daemon has ended. Undefined while it works, or when it has no daemon. */
  readonly lost?: string | undefined;
  /**
   * Called once, when the disk is lost. From then on every access to the disk fails, so that the behaviour of the target
   * proves nothing about it.
   */
  onLost?: ((why: string) => void) | undefined;
}

/** Makes a disk answer nothing, and lets it go on as if nothing had happened. It kills no process. */
export interface DiskStall {
  /**
   * Stops the disk. Nothing is read, written or flushed until `end`: a process that waits for the disk goes on waiting. A cut
   * of the power (`stop`, `resume`, `cut`) may follow in place of `end`. Calls while the disk is stalled prolong the time
   * after which a watchdog ends the stall.
   */
  begin(): Promise<void>;
  /**
   * Completes the requests that waited, and lets the disk go on. It may be called when nothing is stalled.
   * @throws Error when something else has ended the stall before.
   */
  end(): Promise<void>;
}

/**
 * An injector of write errors: all writes and flushes of a disk fail with EIO below the filesystem, including
 * the filesystem's own writes.
 */
export interface WriteErrorInjector {
  /** Makes every write fail from now on. Writes that were already in flight are completed. */
  begin(): Promise<void>;
  /** Returns the number of writes that have failed since `begin`. */
  failedWrites(): Promise<number>;
  /**
   * Lets the disk write again. Failed writes are not repeated, and the filesystem may have shut itself down.
   */
  end(): Promise<void>;
  /**
   * Unmounts the disk and mounts it again; afterwards the disk works. Without a preceding `end`, data that
   * was only in memory is lost. After an `end`, the unmount writes the data whose write has not failed. No
   * process may use the disk any more.
   * @throws Error when a process still uses the disk.
   */
  remount(): Promise<void>;
}

/**
 * Whether something can be used on this machine; if not, the reason and the remedy, as phrases for people.
 */
export type Availability = { available: true } | { available: false; why: string; remedy: string };

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

/** Compares the files of the data directory before and after a crash. The target must be down at both. */
export interface LossObserver {
  /** Remembers the files as they are now, with everything that is only in the page cache. */
  before(): void;
  /**
   * Returns what the files of the last `before` have lost since.
   * @param lostPages hashes of the pages that the drive had in its cache and lost.
   */
  after(lostPages?: ReadonlySet<string>): LostFile[];
}

/** What an injection of `io-error` makes fail first. */
export interface Aim {
  calls: 'sync' | 'write';
  /**
   * Position of the call among the calls of its name that a thread makes, from 1. Undefined: the fault draws it. A
   * replay repeats it, because the injections before, from which it follows, may be missing there.
   */
  position?: number | undefined;
}

/** The syncs of a target that the injections of one run have seen. */
export interface SyncMemory {
  /** True until the first `learn`. */
  readonly isEmpty: boolean;
  /**
   * Notes the syncs of a start under strace, and which of them have failed.
   * @param logs strace logs of the services, in a fixed order, and the length of each in bytes at the first confirmation.
   */
  learn(logs: readonly { text: string; confirmedOffset: number }[], context: { dataDir: string }): void;
  /** Chooses a sync that has not failed, or writes; undefined when no such sync is known. */
  draw(random: Random): Aim | undefined;
}

/** System calls that a fault made fail. */
export interface FailedCalls {
  /** Time in ms between the first failure and the end of the injection. */
  sinceMs: number;
  calls: FailedCall[];
}

/** The failures of one kind of call on one file. */
export interface FailedCall {
  service: string;
  call: string;
  /** Path below the data directory, or an absolute path; null when the trace does not show it, as for msync. */
  path: string | null;
  /** Name of the error, such as EIO. */
  error: string;
  count: number;
}

/** The result of one injection. `hit: false` is a miss and is counted as one. */
export interface Injection {
  hit: boolean;
  scope: CrashScope;
  /** Names of the services that the injection affected. */
  services: string[];
  /** Nodes that the injection harmed; undefined for a target without `nodes`. */
  nodes?: string[];
  /** One line for people: what was done, or why nothing was. */
  detail: string;
  /** True when a file that the target must be able to rebuild was changed. */
  indexDamaged: boolean;
  /** Ids of the messages whose stored bytes were damaged. */
  rotted: string[];
  /**
   * Time in ms before the crash in which data may not have reached the disk, because its writes or syncs
   * failed, or because the disk had stopped. It includes the time after a repair of the disk. 0 for other faults.
   */
  failingMs: number;
  /** Files that the crash took something from; undefined when nothing compared them. */
  lostFiles?: LostFile[];
  /** Files with messages that the target itself removed or changed while calls failed. */
  destroyedFiles?: LostFile[];
  /** Calls that the fault made fail; undefined for other faults. */
  failed?: FailedCalls;
  /** What the fault drew from `FaultContext.syncSites`. A replay needs it. The history does not have it. */
  aim?: Aim | undefined;
}

/** The requirements of a fault on the round in which it is injected. */
export interface Needs {
  /**
   * `down`: the kit kills every process of the target first, and the fault works on the files that they left.
   */
  target: 'up' | 'down';
  /**
   * `limited`: the data directory is on a separate filesystem whose size can be changed. `power`: the data
   * directory is on a disk whose power can be cut.
   */
  disk: 'any' | 'limited' | 'power';
  /**
   * `one`: the fault acts on one node of a cluster. `scope`: it acts on each node of its context, of which there is one, a
   * minority, a majority, or all. `cluster`: it needs a cluster, and chooses its nodes itself. Default: `one`.
   */
  nodes?: 'one' | 'scope' | 'cluster';
}

/** A kind of failure that can be injected into a target. */
export interface Fault {
  readonly name: string;
  /**
   * The name in a target's guarantee that covers this fault. It is the fault's own name if no other fault
   * shares it.
   */
  readonly family: string;
  /** Families that a target must claim besides `family`, because the fault does what they do as well. Default: none. */
  readonly alsoClaimed?: readonly string[];
  /** One line for people: what the fault does, and why a correct target survives it. */
  readonly summary: string;
  readonly needs: Needs;
  /**
   * True for a fault that acts on what the target has stored in `dataDir`. It proves nothing about a target that
   * keeps its messages elsewhere, so it is a miss when the target has written nothing to `dataDir`.
   */
  readonly actsOnStoredData?: true;
  /** Reports whether this machine has what the fault needs. */
  available(): Promise<Availability>;
  /**
   * The kind of disk on which the fault can also act below the filesystem, if the power backend supports
   * that. The fault works without such a disk.
   */
  readonly preferredDisk?: 'power';
  /** True for a fault that a round injects at most once: a second one needs a recovery whose end the kit cannot see. */
  readonly oncePerRound?: true;
  /**
   * Whether receivers accept nothing from the wait before the fault until the target is ready again. Without that, a fast
   * receiver has taken every confirmed message before the fault can lose it.
   */
  readonly holdsReceivers?: 'always' | 'sometimes';
  /**
   * Prepares the fault for a round. Called once per round, when the target is ready for the first time and
   * has received no message yet.
   */
  prepare?(context: FaultContext): Promise<void>;
  /** Injects the failure, and resolves to what was done. */
  inject(context: FaultContext): Promise<Injection>;
  /**
   * Undoes what must be undone (SIGCONT, clock reset). It may be called twice, and after a failed injection.
   */
  heal(context: FaultContext): Promise<void>;
}

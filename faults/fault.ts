/**
 * A fault is a thing that is done to a target: it has a name, says what it needs, proves that it hit, and can
 * be healed. It knows processes, files and devices; it knows nothing of queues.
 */
export type CrashScope = 'none' | 'some-processes' | 'all-processes' | 'machine';

/** A service of the target as a fault sees it, whatever runtime it lives in. */
export interface Service {
  readonly name: string;
  /** Process ids (in the kit's namespace) of the live processes of this service; empty when it is down. */
  pids(): number[];
  /** Sends a signal to every process of the service; resolves to the number of processes that got it. */
  signal(signal: 'SIGKILL' | 'SIGSTOP' | 'SIGCONT' | 'SIGTERM'): Promise<number>;
  /** Starts it again if it is down; `wrap` is put before its command (for example `strace …`). */
  start(wrap?: readonly string[], env?: Readonly<Record<string, string>>): Promise<void>;
  /** Resolves when no process of the service is left; rejects after `timeoutMs`. */
  waitForExit(timeoutMs: number): Promise<void>;
}

/** The ground on which a fault works. */
export interface FaultContext {
  readonly services: readonly Service[];
  /** The directory (or mount point) that holds the target's data. */
  readonly dataDir: string;
  /** The disk below `dataDir`, where its power can be cut. */
  readonly powerDisk?: PowerDisk | undefined;
  /** Scratch space of this run, outside `dataDir`. */
  readonly scratchDir: string;
  /** Seeded, so that one seed makes the whole schedule. */
  readonly random: Random;
  /** Files of the target that only speed it up and that it must be able to rebuild (globs, relative to `dataDir`). */
  readonly indexFiles: readonly string[];
  /** Files that hold messages (globs, relative to `dataDir`); all others are left alone by `data-rot`. */
  readonly messageFiles: readonly string[];
  /** How long the last start took until the target was ready; the measure for killing it during the next one. */
  readonly usualRecoveryMs: number;
  /** Resolves after `count` more confirmations, or at `timeoutMs`; tells which. */
  waitForConfirms(count: number, timeoutMs: number): Promise<'reached' | 'timeout'>;
  /** Resolves after `count` more rejections, or at `timeoutMs`; tells which. */
  waitForRejections(count: number, timeoutMs: number): Promise<'reached' | 'timeout'>;
  /** While on, nothing that the target holds is taken from it, and producers send as much as they can. */
  flood(on: boolean): void;
  /** Byte strings that mark messages which are stored and confirmed and not yet delivered, for `data-rot`. */
  storedMarks(): ReadonlyMap<string, Buffer>;
  readonly signal: AbortSignal;
}

export interface Random {
  /** Integer from 0 to `below` - 1. */
  int(below: number): number;
  /** Number from 0 (included) to 1 (excluded). */
  real(): number;
  pick<T>(items: readonly T[]): T;
  /** A generator of its own, so that one consumer's draws do not move another's. */
  fork(name: string): Random;
}

/**
 * What becomes of the writes between the last flush and a power cut. `all-lost`: the drive's cache is gone. `prefix`: the
 * drive had written some of them, in order. `torn`: the same, and of one more write some sectors only.
 */
export type Loss = 'all-lost' | 'prefix' | 'torn';

/** What a power cut did, with the time that each step of it took. */
export interface CutReport {
  /** Writes that no flush had covered at the cut: without any, nothing could be lost. */
  unflushedWrites: number;
  /** One line: the place in the log, what was flushed, lost, kept, torn. */
  detail: string;
  tookMs: { drop: number; image: number; record: number; mount: number };
}

/** A disk that can lose its power: what was not flushed by then is gone. */
export interface PowerDisk {
  /** Name of the backend, as in `--power`. */
  readonly backend: 'blocklog' | 'flakey';
  /** The processes of the target are on the machine that stops: `stop` has ended them, before anything else went on. */
  readonly killsTarget: boolean;
  /**
   * Stops the disk and returns the moment, for `cut`: nothing is written or flushed until `resume`, and who waits for
   * that waits on. An answer that is given meanwhile is based on what was done before.
   */
  stop(): number | Promise<number>;
  /** Lets the disk go on, so that processes which wait for it can die; what it does from here on is cut off. */
  resume(): void | Promise<void>;
  /**
   * Makes the disk as it is after a cut at that moment, and mounts it again. No process may use it any more.
   * @throws Error when something still uses the disk, or when it cannot be mounted again.
   */
  cut(cutPoint: number, loss: Loss, random: Random): Promise<CutReport>;
  /** Undefined where the backend cannot let writes fail. */
  readonly writeErrors: WriteErrorInjector | undefined;
}

/** Writes that fail with EIO below the filesystem, its own among them, and flushes with them. */
export interface WriteErrorInjector {
  /** From now on every write fails; what was on its way before is done. */
  begin(): Promise<void>;
  /** How many have failed since. */
  failedWrites(): Promise<number>;
  /** The disk writes again; what has failed is not made up for, and the filesystem may have given up. */
  end(): Promise<void>;
  /**
   * Unmounts and mounts the disk again, which then works. Without an `end` before, what was only in memory is gone; with
   * one, the unmount writes what has not failed yet. No process may use the disk any more.
   * @throws Error when one does.
   */
  remount(): Promise<void>;
}

export type Availability = { available: true } | { available: false; why: string; remedy: string };

/** What was done; `hit: false` is a miss and is counted as one. */
export interface Injection {
  hit: boolean;
  scope: CrashScope;
  services: string[];
  detail: string;
  indexDamaged: boolean;
  rotted: string[];
  /** For so long before the crash, in milliseconds, the disk had been refusing writes. */
  failingMs: number;
}

/** What a fault needs of the round in which it is done. */
export interface Needs {
  /** `down`: the driver kills every process of the target first, and the fault works on what they left. */
  target: 'up' | 'down';
  /**
   * `limited`: the data directory lies on a filesystem of its own whose size can be changed; `power`: on a disk whose
   * power can be cut.
   */
  disk: 'any' | 'limited' | 'power';
}

export interface Fault {
  readonly name: string;
  /** The name in a target's guarantee that covers this fault; the fault's own name where it stands alone. */
  readonly family: string;
  /** One line for people: what is done, and why a correct target survives it. */
  readonly summary: string;
  readonly needs: Needs;
  available(): Promise<Availability>;
  /** The kind of disk on which it is done below the filesystem, where the power backend can; it needs none. */
  readonly preferredDisk?: 'power';
  /** Done once in a round, when the target is ready for the first time and has had no message yet. */
  prepare?(context: FaultContext): Promise<void>;
  inject(context: FaultContext): Promise<Injection>;
  /** Undoes what has to be undone (SIGCONT, clock back); may be called twice, and after a failure. */
  heal(context: FaultContext): Promise<void>;
}

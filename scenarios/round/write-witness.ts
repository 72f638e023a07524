import { statfsSync } from 'node:fs';
import { join } from 'node:path';
import type { Fault, Injection, Service } from '../../faults/fault.js';
import { changedSince, fileClockMs, filesChangedSince } from '../../faults/files/changes.js';
import { type SearchResult, searchFiles } from '../../faults/files/search.js';
import {
  filesOpenOutside,
  filesWrittenOutside,
  mapsFilesBelow,
  readablePath,
} from '../../faults/tracing/written-outside.js';
import { sleep } from '../../faults/waiting.js';
import type { Ledger } from './workload/ledger.js';

/** Parts of a round that the witness uses. */
export interface WriteWitnessOptions {
  tally: Ledger['tally'];
  /** The directory under test. */
  dataDir: string;
  /** Directory of the kit for temporary files, outside `dataDir`. */
  scratchDir: string;
  /** Files and directories outside `dataDir` to which the kit itself lets the target write, such as its logs. */
  ignored: readonly string[];
}

/** A moment of the round: the clock of the filesystem, and how many messages were confirmed or in flight. */
interface Moment {
  fileMs: number;
  confirmed: number;
  inFlight: number;
}

/**
 * What a fault can prove about the data of a target that has messages at risk. `unstored`: the target keeps them
 * elsewhere, because messages were confirmed while nothing in `{data}` changed, or because messages at risk are in
 * files outside `{data}` and in none of its files. `unchanged`: nothing in `{data}` changed since the last fault hit
 * it, so a power cut can lose nothing.
 */
export interface Unwritten {
  how: 'unstored' | 'unchanged';
  why: string;
  /** True when files outside `{data}` were seen that the target writes: its messages are then not only in memory. */
  writesElsewhere: boolean;
}

const UNCHANGED: Unwritten = {
  how: 'unchanged',
  why: 'nothing in {data} changed since the last fault hit it',
  writesElsewhere: false,
};

/** Upper bound for the wait for the next tick of the filesystem's clock, in tries of 1 ms. A tick takes 1 to 10 ms. */
const MAX_TICK_TRIES = 100;
/** Number of files outside `{data}` that a reason names. */
const MAX_NAMED_FILES = 2;
/** Upper bound of the traces of one witness: each slows the target for up to half a second. */
const MAX_TRACES = 3;
/** Upper bound of the files outside `{data}` that a witness remembers. A spool has one for each message. */
const MAX_KEPT_FILES = 100;

/** Returns the ids of the messages at risk whose bytes are in a part of a file, plain or encoded. */
export type MessagesIn = (bytes: Buffer) => readonly string[];

/**
 * Observes whether the target writes to the tested disk. A fault of this disk proves nothing about messages that the
 * target keeps elsewhere, however many are at risk. The number of requests to the disk would not show it, because the
 * filesystem writes too: its journal, and what a mount changes.
 */
export class WriteWitness {
  readonly #options: WriteWitnessOptions;
  /** Clock of the filesystem after the install. A file that has not changed since then has none of the messages. */
  readonly #installedMs: number;
  /** The last moment at which a fault hit the tested disk; at first the moment after the install. */
  #lastHit: Moment;
  /** The last moment at which the target was seen to be ready. */
  #ready: Moment;
  /** A file that changed before; it is likely to change again. */
  #hint: string | undefined;
  /** The last finding that the target stores its messages elsewhere; undefined when it was seen to store them here. */
  #unstored: Unwritten | undefined;
  /** True when a message at risk was seen in a file of `{data}`. A target does not move its store in a round. */
  #isStoredHere = false;
  /** True when messages at risk were seen in files outside `{data}` only. */
  #isStoredOutside = false;
  /** Files outside `{data}` that the target was seen to write. They are looked for until there is one. */
  #outside: readonly string[] = [];
  #traces = 0;

  constructor(options: WriteWitnessOptions) {
    this.#options = options;
    this.#lastHit = this.#now();
    this.#ready = this.#lastHit;
    this.#installedMs = this.#lastHit.fileMs;
  }

  /** Files outside `{data}` that the target was seen to write; empty before the first search. */
  get writtenOutside(): readonly string[] {
    return this.#outside;
  }

  /**
   * Notes that the target is ready: what it writes from now on belongs to the messages. Resolves at the next tick of
   * the filesystem's clock, after at most a few milliseconds. In the same tick, a file of the start would count as
   * written later.
   */
  async noteReady(signal: AbortSignal): Promise<void> {
    const { fileMs } = this.#now();
    for (let tries = 0; tries < MAX_TICK_TRIES && !signal.aborted; tries++) {
      this.#ready = this.#now();
      if (this.#ready.fileMs > fileMs) return;
      await sleep(1, signal);
    }
  }

  /** Notes that a fault has hit the tested disk. Must be called while the target is down. */
  noteHit(): void {
    this.#lastHit = this.#now();
  }

  /**
   * Returns why a fault of the tested disk would prove nothing now; undefined if it can prove something, or if no
   * message is at risk. Must be called before the fault, while the target runs.
   */
  async inspect(services: readonly Service[], messagesIn: MessagesIn): Promise<Unwritten | undefined> {
    const { tally, dataDir } = this.#options;
    // At the moment of the fault, messages may be at risk again: what was found out before holds for them too.
    if (tally.outstanding === 0) return this.#unstored;
    const [ready, lastHit] = [this.#ready, this.#lastHit];
    const sinceReady = ready.fileMs > lastHit.fileMs ? this.#confirmedSince(ready) : 0;
    // Without messages since the target was ready, a file that its start has written shows nothing. What was found out
    // before still holds.
    if (sinceReady <= 0 && this.#unstored !== undefined) return this.#unstored;
    const pids = pidsOf(services);
    if (this.#hasChanged((sinceReady > 0 ? ready : lastHit).fileMs)) {
      if (sinceReady > 0 && !this.#isStoredOutside) this.#unstored = undefined;
      // The messages may be elsewhere all the same, and only a log file here.
      return this.#inspectContents(pids, messagesIn);
    }
    // A target that does not sync its mapped files changes their pages without a new time stamp. Its start gave them
    // one.
    const isMapped = mapsFilesBelow(dataDir, pids);
    // A tmpfs keeps no times of writes to mapped files at all, so that equal times show nothing.
    if (isMapped && isTmpfs(dataDir)) return this.#inspectContents(pids, messagesIn);
    const isNew = sinceReady > 0 && !isMapped;
    if (!isNew && this.#hasChanged(lastHit.fileMs)) return this.#inspectContents(pids, messagesIn);
    const count = isNew ? sinceReady : this.#confirmedSince(lastHit);
    if (count <= 0) return UNCHANGED;
    const outside = named(await this.#lookOutside(pids));
    const writes = outside === '' ? '' : `; it writes ${outside} outside {data}`;
    this.#unstored = {
      how: 'unstored',
      writesElsewhere: outside !== '',
      why: `${count} messages were confirmed and nothing in {data} changed: the target keeps its messages elsewhere${writes}`,
    };
    return this.#unstored;
  }

  /**
   * Searches for the messages at risk, in the files of `{data}` and in those that the target writes outside it. The
   * target keeps its messages elsewhere only if one is seen there and none in `{data}`: the store in `{data}` may be
   * compressed or encrypted, and the other file a log.
   */
  async #inspectContents(pids: readonly number[], messagesIn: MessagesIn): Promise<Unwritten | undefined> {
    const matches = (bytes: Buffer) => messagesIn(bytes).length > 0;
    const inside = this.#isStoredHere ? undefined : this.#searchData(matches);
    if (inside === undefined || inside.found !== undefined) {
      this.#isStoredHere ||= inside !== undefined;
      if (this.#isStoredHere) this.#unstored = undefined;
      const { dataDir, ignored } = this.#options;
      if (this.#outside.length === 0) this.#outside = filesOpenOutside(pids, dataDir, ignored);
      return this.#unstored;
    }
    const isSeenIn = (files: readonly string[]) =>
      searchFiles(
        files.map((file) => readablePath(file, pids)),
        matches,
      ).found !== undefined;
    const files = await this.#lookOutside(pids, isSeenIn);
    const holders = files.filter((file) => isSeenIn([file]));
    if (holders.length === 0) return this.#unstored;
    // Search again: the target may have written the message to {data} after the first search.
    const again = this.#searchData(matches);
    if (again === undefined || again.found !== undefined || !again.isComplete) return this.#unstored;
    this.#isStoredOutside = true;
    this.#unstored = {
      how: 'unstored',
      writesElsewhere: true,
      why: `the target keeps its messages elsewhere: those at risk are in no file of {data}; it writes ${named(holders)} outside {data}`,
    };
    return this.#unstored;
  }

  /** Searches the files of `{data}`; undefined when they cannot be listed, as those of another machine. */
  #searchData(matches: (bytes: Buffer) => boolean): SearchResult | undefined {
    const { dataDir } = this.#options;
    const files = filesChangedSince(dataDir, this.#installedMs);
    return files && searchFiles(files, matches, undefined, dataDir);
  }

  /** Returns the number of messages that were certainly written and confirmed since a moment. */
  #confirmedSince({ confirmed, inFlight }: Moment): number {
    // A message that was in flight at that moment may have been written before it.
    return this.#options.tally.confirmed - confirmed - inFlight;
  }

  #hasChanged(sinceMs: number): boolean {
    const changed = changedSince(this.#options.dataDir, sinceMs, this.#hint);
    if (changed !== undefined) this.#hint = changed;
    return changed !== undefined;
  }

  /**
   * Returns the files outside `{data}` that the target writes, with those that were seen before.
   * @param isEnough returns whether no more files need be looked for. Default: one file is enough.
   */
  async #lookOutside(
    pids: readonly number[],
    isEnough: (files: readonly string[]) => boolean = (files) => files.length > 0,
  ): Promise<readonly string[]> {
    const { dataDir, scratchDir, ignored } = this.#options;
    if (isEnough(this.#outside)) return this.#outside;
    const log = join(scratchDir, 'written-outside.strace');
    const files =
      this.#traces++ < MAX_TRACES
        ? await filesWrittenOutside(pids, dataDir, ignored, log, { isEnough })
        : filesOpenOutside(pids, dataDir, ignored);
    this.#outside = [...new Set([...this.#outside, ...files])].slice(0, MAX_KEPT_FILES);
    return this.#outside;
  }

  #now(): Moment {
    const { tally, scratchDir } = this.#options;
    const fileMs = fileClockMs(join(scratchDir, 'file-clock'));
    return { fileMs, confirmed: tally.confirmed, inFlight: tally.inFlight };
  }
}

/** Lists files as one phrase; empty when there are none. */
function named(files: readonly string[]): string {
  const more = files.length - MAX_NAMED_FILES;
  return [...files.slice(0, MAX_NAMED_FILES), ...(more > 0 ? [`and ${more} more`] : [])].join(', ');
}

/** Type of tmpfs in the result of statfs(2). */
const TMPFS_MAGIC = 0x01021994;

function isTmpfs(dir: string): boolean {
  try {
    return statfsSync(dir).type === TMPFS_MAGIC;
  } catch {
    return false;
  }
}

function pidsOf(services: readonly Service[]): number[] {
  return services.flatMap((service) => service.pids());
}

/**
 * Returns the injection, changed into a miss if the fault acts on stored data and the target stored nothing. When
 * nothing at all happened since the last fault, only a power cut is a miss: the other faults prove themselves that
 * they changed a file.
 */
export function judgeWritten(
  { needs }: Pick<Fault, 'needs'>,
  injection: Injection,
  unwritten: Unwritten | undefined,
): Injection {
  if (unwritten === undefined) return injection;
  // The fault has found the messages in the files of {data} and has damaged them: a miss would hide why they are gone.
  if (injection.rotted.length > 0) return injection;
  const { how, why } = unwritten;
  if (how === 'unchanged' && (needs.disk !== 'power' || !injection.hit)) return injection;
  return { ...injection, hit: false, detail: `${why}; ${injection.detail}` };
}

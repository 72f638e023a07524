import { join } from 'node:path';
import type { Fault, Injection, Service } from '../../faults/fault.js';
import { changedSince, fileClockMs } from '../../faults/files/changes.js';
import {
  filesOpenOutside,
  filesWrittenOutside,
  mapsFilesBelow,
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
 * What a fault can prove about the data of a target that has messages at risk. `unstored`: messages were confirmed
 * while nothing in `{data}` changed, so the target keeps them elsewhere. `unchanged`: nothing in `{data}` changed
 * since the last fault hit it, so a power cut can lose nothing.
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

/**
 * Observes whether the target writes to the tested disk. A fault of this disk proves nothing about messages that the
 * target keeps elsewhere, however many are at risk. The number of requests to the disk would not show it, because the
 * filesystem writes too: its journal, and what a mount changes.
 */
export class WriteWitness {
  readonly #options: WriteWitnessOptions;
  /** The last moment at which a fault hit the tested disk; at first the moment after the install. */
  #lastHit: Moment;
  /** The last moment at which the target was seen to be ready. */
  #ready: Moment;
  /** A file that changed before; it is likely to change again. */
  #hint: string | undefined;
  /** The last finding that the target stores its messages elsewhere; undefined when it was seen to store them here. */
  #unstored: Unwritten | undefined;
  /** Files outside `{data}` that the target was seen to write. They are looked for once per round. */
  #outside: string[] | undefined;

  constructor(options: WriteWitnessOptions) {
    this.#options = options;
    this.#lastHit = this.#now();
    this.#ready = this.#lastHit;
  }

  /** Files outside `{data}` that the target was seen to write; empty before the first search. */
  get writtenOutside(): readonly string[] {
    return this.#outside ?? [];
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
  async inspect(services: readonly Service[]): Promise<Unwritten | undefined> {
    const { tally, dataDir, ignored } = this.#options;
    if (tally.outstanding === 0) return undefined;
    const [ready, lastHit] = [this.#ready, this.#lastHit];
    const sinceReady = ready.fileMs > lastHit.fileMs ? this.#confirmedSince(ready) : 0;
    // Without messages since the target was ready, a file that its start has written shows nothing. What was found out
    // before still holds.
    if (sinceReady <= 0 && this.#unstored !== undefined) return this.#unstored;
    if (this.#hasChanged((sinceReady > 0 ? ready : lastHit).fileMs)) {
      if (sinceReady > 0) this.#unstored = undefined;
      // The messages may be elsewhere all the same, and only a log file here: name what else the target writes.
      this.#outside ??= filesOpenOutside(pidsOf(services), dataDir, ignored);
      return undefined;
    }
    const pids = pidsOf(services);
    // A target that does not sync its mapped files changes their pages without a new time stamp. Its start gave them
    // one.
    const isNew = sinceReady > 0 && !mapsFilesBelow(dataDir, pids);
    if (!isNew && this.#hasChanged(lastHit.fileMs)) return undefined;
    const count = isNew ? sinceReady : this.#confirmedSince(lastHit);
    if (count <= 0) return UNCHANGED;
    const outside = await this.#filesOutside(pids);
    const named = outside.length === 0 ? '' : `; it writes ${outside.join(', ')} outside {data}`;
    this.#unstored = {
      how: 'unstored',
      writesElsewhere: outside.length > 0,
      why: `${count} messages were confirmed and nothing in {data} changed: the target keeps its messages elsewhere${named}`,
    };
    return this.#unstored;
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

  async #filesOutside(pids: readonly number[]): Promise<readonly string[]> {
    const { dataDir, scratchDir, ignored } = this.#options;
    const log = join(scratchDir, 'written-outside.strace');
    if (this.#outside === undefined || this.#outside.length === 0)
      this.#outside = await filesWrittenOutside(pids, dataDir, ignored, log);
    const more = this.#outside.length - MAX_NAMED_FILES;
    return [...this.#outside.slice(0, MAX_NAMED_FILES), ...(more > 0 ? [`and ${more} more`] : [])];
  }

  #now(): Moment {
    const { tally, scratchDir } = this.#options;
    const fileMs = fileClockMs(join(scratchDir, 'file-clock'));
    return { fileMs, confirmed: tally.confirmed, inFlight: tally.inFlight };
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
  const { how, why } = unwritten;
  if (how === 'unchanged' && (needs.disk !== 'power' || !injection.hit)) return injection;
  return { ...injection, hit: false, detail: `${why}; ${injection.detail}` };
}

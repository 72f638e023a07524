import { SECTOR_BYTES } from '../sector.js';
import type { LogEntry } from './reader.js';
import type { CrashState } from './state.js';

/** A write that a crash state has on the medium, as a whole or in part. */
export interface AppliedWrite {
  entry: LogEntry;
  /** Numbers of the sectors that are on the medium, from the beginning of the write; undefined: all. */
  sectors: readonly number[] | undefined;
}

/** The fields of an entry that the model uses. The model does not depend on the data. */
export type ModelEntry = Pick<LogEntry, 'index' | 'lengthBytes' | 'flush' | 'fua'>;

/**
 * The disks that a power cut may leave, given the log of the requests to the drive.
 *
 * - A flush puts everything on the medium that was complete before it. The flush of an entry comes before its
 *   own data.
 * - A FUA write is on the medium when it is complete.
 * - Every other write since the last flush may be on the medium as a whole, in part (any set of its sectors
 *   of 512 bytes), or not at all. This covers every order in which the drive may have written: only the last
 *   write that reached a sector matters, and each write may be that one. A discard is a write of zeros.
 * - The entry after the last complete one may have been in flight. If it has a flush, the flush was done
 *   before its data.
 */
export class CrashModel {
  readonly entries: readonly LogEntry[];
  /** By number of complete entries: n so that the entries below number n are certainly on the medium. */
  readonly #durablePrefixes: Int32Array;

  constructor(entries: readonly LogEntry[]) {
    this.entries = entries;
    this.#durablePrefixes = durablePrefixesOf(entries);
  }

  /**
   * Returns n so that all entries below number n are certainly on the medium when `prefix` entries were
   * complete.
   */
  durablePrefix(prefix: number): number {
    return this.#durablePrefixes[prefix] ?? 0;
  }

  /**
   * Returns n so that all entries below number n are certainly on the medium in a state. The write in flight
   * of a state may have flushed all entries before it.
   */
  durablePrefixOf({ prefix, kept, torn }: CrashState): number {
    const inFlight = this.entries[prefix];
    const begun = kept.at(-1) === prefix || torn.has(prefix);
    return begun && inFlight?.flush === true ? prefix : this.durablePrefix(prefix);
  }

  /**
   * Returns the numbers of the writes that may be on the medium or not when `prefix` entries were complete;
   * ascending.
   */
  optional(prefix: number): number[] {
    const numbers: number[] = [];
    for (let index = this.durablePrefix(prefix); index < prefix; index++) {
      const entry = this.entries[index];
      if (entry !== undefined && entry.lengthBytes > 0 && !entry.fua) numbers.push(index);
    }
    return numbers;
  }

  /**
   * Returns the writes that a state has on the medium, from entry number `from` on, in the order of their
   * application.
   */
  appliedWrites(state: CrashState, from = 0): AppliedWrite[] {
    const durablePrefix = this.durablePrefixOf(state);
    const { kept } = state;
    let nextKept = 0;
    const list: AppliedWrite[] = [];
    const end = Math.min(this.entries.length, state.prefix + 1);
    for (let index = from; index < end; index++) {
      const entry = this.entries[index];
      if (entry === undefined || entry.lengthBytes === 0) continue;
      const certain = index < durablePrefix || (entry.fua && index < state.prefix);
      while ((kept[nextKept] ?? end) < index) nextKept++;
      if (certain || kept[nextKept] === index) list.push({ entry, sectors: undefined });
      else {
        const sectors = state.torn.get(index);
        if (sectors !== undefined && sectors.length > 0) list.push({ entry, sectors });
      }
    }
    return list;
  }

  /** Returns every write of the entries from `from` to `to` - 1, as a whole. */
  writes(from: number, to: number): AppliedWrite[] {
    return this.entries
      .slice(from, to)
      .filter(({ lengthBytes }) => lengthBytes > 0)
      .map((entry) => ({ entry, sectors: undefined }));
  }

  /**
   * Returns the reason why no power cut can leave this state, in one line; undefined when the state is
   * possible.
   */
  whyImpossible(state: CrashState): string | undefined {
    const { prefix, kept, torn } = state;
    const count = this.entries.length;
    if (!(Number.isInteger(prefix) && prefix >= 0 && prefix <= count))
      return `prefix ${prefix}: expected 0 to ${count}, the entries of the log`;
    const durablePrefix = this.durablePrefixOf(state);
    for (const index of [...kept, ...torn.keys()]) {
      const entry = this.entries[index];
      if (entry === undefined || entry.lengthBytes === 0 || index > prefix)
        return `entry ${index}: expected a write up to entry ${prefix}`;
      if (index < durablePrefix || (entry.fua && index < prefix))
        return `entry ${index}: is on the medium in any case, expected one that was not flushed`;
      if (torn.has(index) && kept.includes(index)) return `entry ${index}: is both kept and torn`;
    }
    for (const [index, sectors] of torn) {
      const sectorCount = (this.entries[index]?.lengthBytes ?? 0) / SECTOR_BYTES;
      const wrong = sectors.find((sector) => sector >= sectorCount);
      if (wrong !== undefined)
        return `entry ${index}: has ${sectorCount} sectors and none of number ${wrong}`;
    }
    return undefined;
  }
}

function durablePrefixesOf(entries: readonly ModelEntry[]): Int32Array {
  const durablePrefixes = new Int32Array(entries.length + 1);
  let durablePrefix = 0;
  entries.forEach((entry, index) => {
    if (entry.flush) durablePrefix = index;
    durablePrefixes[index + 1] = durablePrefix;
  });
  return durablePrefixes;
}

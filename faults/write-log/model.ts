import { SECTOR_BYTES } from '../sector.js';
import type { LogEntry } from './reader.js';
import type { CrashState } from './state.js';

/** A write, or so much of it, that a state has on the medium. */
export interface AppliedWrite {
  entry: LogEntry;
  /** Undefined: all of it. */
  sectors: readonly number[] | undefined;
}

/** What the model looks at; the data itself plays no part in it. */
export type ModelEntry = Pick<LogEntry, 'index' | 'lengthBytes' | 'flush' | 'fua'>;

/**
 * Which disks a power cut may leave, given the log of what the drive was asked to do.
 *
 * - A flush puts everything on the medium that was complete before it. The flush of an entry comes before its own data.
 * - A FUA write is on the medium when it is complete.
 * - Every other write since the last flush may be there, or not, or any of its sectors of 512 bytes. That covers
 *   any order in which the drive may have written: for a sector only the last write matters that reached it, and
 *   each of them may be that one. A discard is a write of zeros.
 * - The entry after the last complete one may have been under way. If it flushes, that was done before its data.
 */
export class CrashModel {
  readonly entries: readonly LogEntry[];
  /** At [prefix]: entries below this are on the medium. */
  readonly #durablePrefixes: Int32Array;

  constructor(entries: readonly LogEntry[]) {
    this.entries = entries;
    this.#durablePrefixes = durablePrefixesOf(entries);
  }

  /** Entries below this number are on the medium, whatever happens, when `prefix` entries were complete. */
  durablePrefix(prefix: number): number {
    return this.#durablePrefixes[prefix] ?? 0;
  }

  /** The same for a state, whose write under way may have brought a flush of its own. */
  durablePrefixOf({ prefix, kept, torn }: CrashState): number {
    const inFlight = this.entries[prefix];
    const begun = kept.at(-1) === prefix || torn.has(prefix);
    return begun && inFlight?.flush === true ? prefix : this.durablePrefix(prefix);
  }

  /** Numbers of the writes that may be there or not when `prefix` entries were complete; ascending. */
  optional(prefix: number): number[] {
    const numbers: number[] = [];
    for (let index = this.durablePrefix(prefix); index < prefix; index++) {
      const entry = this.entries[index];
      if (entry !== undefined && entry.lengthBytes > 0 && !entry.fua) numbers.push(index);
    }
    return numbers;
  }

  /** All that a state has on the medium of the entries from number `from` on, in the order in which it is to be applied. */
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

  /** Every write of the entries from `from` to the one before `to`, whole. */
  writes(from: number, to: number): AppliedWrite[] {
    return this.entries
      .slice(from, to)
      .filter(({ lengthBytes }) => lengthBytes > 0)
      .map((entry) => ({ entry, sectors: undefined }));
  }

  /** Why no power cut can leave this state, in one line; undefined when one can. */
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

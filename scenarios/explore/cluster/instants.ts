/** A moment of the recorded run at which the logs of all nodes had a known length at the same time. */
export interface Instant {
  /** Number of complete entries of the log of each node, in the order of the target file. */
  lengths: readonly number[];
  /** True when a copy of the files of each node was taken at this moment, with all processes stopped. */
  hasCopies: boolean;
}

/** Number of tries of one sample. A try fails when a disk has completed a request meanwhile. */
const MAX_TRIES = 20;
/** Upper bound of the instants of a recording. */
const MAX_INSTANTS = 4000;

/**
 * Reads lengths that were all true at the same moment: two readings, one after the other, that are equal. Lengths never
 * become smaller, so none changed between its two readings, and these overlap.
 * @param read returns the present length of each log.
 * @returns undefined when a log grew in every try.
 */
export function readTogether(
  read: () => readonly number[],
  tries = MAX_TRIES,
): readonly number[] | undefined {
  let before = read();
  for (let attempt = 0; attempt < tries; attempt++) {
    const after = read();
    if (after.every((length, index) => length === before[index])) return after;
    before = after;
  }
  return undefined;
}

/**
 * The instants of a recording. The number of an instant is the position at which a message counts as confirmed or a state
 * as cut: a message is confirmed `by` an instant when the kit had its confirmation before the lengths were read.
 */
export class Instants {
  readonly all: Instant[] = [];
  readonly #read: () => readonly number[];
  #confirmedSince = 0;

  /** @param read returns the number of complete entries of the log of each node. */
  constructor(read: () => readonly number[]) {
    this.#read = read;
  }

  /** Number of the first instant that is after now. A message that is confirmed now is at risk from that one on. */
  get next(): number {
    return this.all.length;
  }

  /** Number of the last instant before now; 0 when there was none. */
  get last(): number {
    return Math.max(0, this.all.length - 1);
  }

  noteConfirmed(): void {
    this.#confirmedSince += 1;
  }

  /**
   * Adds the present moment, unless it differs in nothing from the instant before. One with copies is always added.
   * @returns the number of the instant; undefined when none was added.
   */
  sample(hasCopies = false): number | undefined {
    if (this.all.length >= MAX_INSTANTS) return undefined;
    const lengths = readTogether(this.#read);
    if (lengths === undefined) return undefined;
    const before = this.all.at(-1)?.lengths;
    const isSame = before !== undefined && lengths.every((length, index) => length === before[index]);
    if (isSame && this.#confirmedSince === 0 && !hasCopies) return undefined;
    this.#confirmedSince = 0;
    return this.all.push({ lengths, hasCopies }) - 1;
  }

  /** Takes back that an instant has copies. */
  dropCopies(number: number): void {
    const instant = this.all[number];
    if (instant !== undefined) this.all[number] = { ...instant, hasCopies: false };
  }
}

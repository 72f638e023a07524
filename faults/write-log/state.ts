/**
 * One disk that a power cut may leave. It is described by the position of the cut in a write log, and by
 * those writes since the last flush that reached the medium. Entries are identified by their number in the
 * log.
 */
export interface CrashState {
  /**
   * Number of entries of the log that were complete at the cut. The entry number `prefix` may have been in
   * flight.
   */
  readonly prefix: number;
  /** Numbers of the writes that no flush covers and that are on the medium as a whole; ascending. */
  readonly kept: readonly number[];
  /**
   * Writes that are on the medium in part: by entry number, the sectors (512 bytes, from the beginning of the
   * write).
   */
  readonly torn: ReadonlyMap<number, readonly number[]>;
}

/** The value of `torn` for a state without torn writes. */
export const NOTHING_TORN: CrashState['torn'] = new Map();

/**
 * Formats the address of a state, which `parseState` reads: `PREFIX`, then `+` and the kept writes, then
 * `~ENTRY:SECTORS` for each torn write. Consecutive numbers are written as `FIRST-LAST`. Example:
 * `812+800-804,806~809:0-3`.
 */
export function formatState({ prefix, kept, torn }: CrashState): string {
  const keptText = kept.length === 0 ? '' : `+${formatNumbers(kept)}`;
  const tornText = [...torn].map(([entry, sectors]) => `~${entry}:${formatNumbers(sectors)}`);
  return `${prefix}${keptText}${tornText.join('')}`;
}

/** Formats ascending whole numbers, separated by commas; consecutive numbers as `FIRST-LAST`. */
export function formatNumbers(numbers: readonly number[]): string {
  const parts: string[] = [];
  for (let at = 0; at < numbers.length; ) {
    let last = at;
    while (numbers[last + 1] === (numbers[last] ?? 0) + 1) last++;
    parts.push(last > at ? `${numbers[at]}-${numbers[last]}` : `${numbers[at]}`);
    at = last + 1;
  }
  return parts.join(',');
}

const ADDRESS = /^(\d+)(?:\+([\d,-]+))?((?:~\d+:[\d,-]*)*)$/;
/** Upper bound for the numbers in one range. It limits the time and memory that a wrong address can cost. */
const MAX_RANGE_NUMBERS = 1 << 22;

/** Parses an address that `formatState` made. @throws RangeError with the expected format. */
export function parseState(text: string): CrashState {
  const match = ADDRESS.exec(text);
  if (match === null)
    throw new RangeError(`${text}: expected the address of a crash state, such as 812+800-804~809:0-3`);
  const torn = new Map<number, readonly number[]>();
  for (const [, entry, sectors = ''] of (match[3] ?? '').matchAll(/~(\d+):([\d,-]*)/g)) {
    torn.set(Number(entry), parseNumbers(sectors));
  }
  return { prefix: Number(match[1]), kept: parseNumbers(match[2] ?? ''), torn };
}

const parseWhole = (word: string): number => (word === '' ? Number.NaN : Number(word));

function parseNumbers(text: string): number[] {
  if (text === '') return [];
  const numbers: number[] = [];
  for (const part of text.split(',')) {
    const dash = part.indexOf('-');
    const first = parseWhole(dash === -1 ? part : part.slice(0, dash));
    const last = dash === -1 ? first : parseWhole(part.slice(dash + 1));
    const previous = numbers.at(-1) ?? -1;
    if (!(first > previous && last >= first && last - first < MAX_RANGE_NUMBERS))
      throw new RangeError(`${part}: expected whole numbers in ascending order, such as 3,5-8`);
    for (let number = first; number <= last; number++) numbers.push(number);
  }
  return numbers;
}

/**
 * One disk that a power cut may have left, as data: it names the place of the cut in a log of writes and what of the
 * writes since the last flush had reached the medium. Entries are known by their number in the log.
 */
export interface CrashState {
  /** The first so many entries of the log were complete at the cut; entry `prefix` itself may have been under way. */
  readonly prefix: number;
  /** Writes that no flush covers and that are on the medium as a whole; ascending. */
  readonly kept: readonly number[];
  /** Writes of which only these sectors (of 512 bytes, from the beginning of the write) are on the medium; ascending. */
  readonly torn: ReadonlyMap<number, readonly number[]>;
}

export const NOTHING_TORN: CrashState['torn'] = new Map();

/**
 * The address of a state, to be told and to be given back: `PREFIX`, then `+` and the kept writes, then for each torn one
 * `~ENTRY:SECTORS`; numbers in a row are written `FIRST-LAST`. For example `812+800-804,806~809:0-3`.
 */
export function formatState({ prefix, kept, torn }: CrashState): string {
  const keptText = kept.length === 0 ? '' : `+${formatNumbers(kept)}`;
  const tornText = [...torn].map(([entry, sectors]) => `~${entry}:${formatNumbers(sectors)}`);
  return `${prefix}${keptText}${tornText.join('')}`;
}

/** Whole numbers in ascending order, those in a row as `FIRST-LAST`, with commas between. */
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
/** More numbers than this in one range are a mistake; it bounds what a wrong address can cost. */
const MAX_RANGE_NUMBERS = 1 << 22;

/** Reads what `formatState` wrote. @throws RangeError that says what was expected. */
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

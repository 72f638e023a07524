/** A list of different strings, in which each string has a number. Strings that repeat are then stored once. */
export class StringTable {
  readonly strings: string[] = [];
  readonly #numbers = new Map<string, number>();

  /** Returns the number of a string. A longer string than a report shows is cut off. */
  numberOf(text: string): number {
    const known = this.#numbers.get(text);
    if (known !== undefined) return known;
    const number = this.strings.length;
    this.#numbers.set(text, number);
    this.strings.push(shorten(text, MAX_STRING_LENGTH));
    return number;
  }
}

/** Longest answer, detail or path that a report shows, in characters. A target may answer with a megabyte. */
export const MAX_STRING_LENGTH = 2000;

/** Returns a text of at most `length` characters; an ellipsis shows that it was cut off. */
export function shorten(text: string, length = MAX_STRING_LENGTH): string {
  return text.length <= length ? text : `${text.slice(0, length - 1)}…`;
}

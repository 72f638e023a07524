/**
 * Returns the candidate that a misspelt word most probably means: the one with the fewest edits (insertion,
 * deletion, replacement, swap of two neighbours). Returns undefined when every candidate differs too much,
 * which is by more than a third of the longer word.
 */
export function nearest(word: string, candidates: readonly string[]): string | undefined {
  let best: string | undefined;
  let fewestEdits = Number.POSITIVE_INFINITY;
  for (const candidate of candidates) {
    const edits = editDistance(word.toLowerCase(), candidate.toLowerCase());
    const limit = Math.max(1, Math.floor(Math.max(word.length, candidate.length) / 3));
    if (edits > limit || edits >= fewestEdits) continue;
    best = candidate;
    fewestEdits = edits;
  }
  return best;
}

/** Returns ` (did you mean X?)` when a candidate is near to the word; otherwise ''. */
export function didYouMean(word: string, candidates: readonly string[]): string {
  const meant = nearest(word, candidates);
  return meant === undefined || meant === word ? '' : ` (did you mean ${meant}?)`;
}

/** Longest words that are compared. The time grows with the product of the lengths. */
const MAX_CHARS = 64;

/** Returns the number of edits between two words: the optimal string alignment distance. */
function editDistance(a: string, b: string): number {
  if (Math.max(a.length, b.length) > MAX_CHARS) return Number.POSITIVE_INFINITY;
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const isSame = a[i - 1] === b[j - 1];
      let edits = Math.min((last[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1, (last[j - 1] ?? 0) + (isSame ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        edits = Math.min(edits, (beforeLast[j - 2] ?? 0) + 1);
      row.push(edits);
    }
    beforeLast = last;
    last = row;
  }
  return last[b.length] ?? 0;
}

/*
 * Why not by fast-check, which shrinks too: it can begin with a case that was not its own (`examples` with `fc.subarray`), and
 * comes to the same smallest parts, but it begins anew with large pieces after each success and cannot ask for whole kinds
 * of faults first. Mean number of questions, twenty drawn cases each; a question is a disk to recover from, or a round
 * that takes seconds, up to twice:
 *
 *     missing writes, of which needed   64, 1   64, 2   64, 4   512, 1   512, 2   512, 4
 *     ddmin                                9      23      58       14       44      105
 *     fc.subarray                         11      36     122       14       74      276
 *     a tuple of fc.boolean               92     128     170      783      986    1,484
 *
 * A schedule in which one of three kinds of faults is needed took 10 to 15 questions as an `fc.record` of faults,
 * producers and depth; by its rules `shrinkSchedule` asks four to eight.
 */

/**
 * The smallest part of a list that still fails, found by leaving out ever smaller pieces (Zeller's ddmin): no single
 * item of the result can be left out, as far as `fails` was right and there was time.
 * @param items of which `fails` is known to hold.
 * @param isOutOfTime true when there is no time to ask once more; what is known then is returned.
 */
export async function ddmin<T>(
  items: readonly T[],
  fails: (part: readonly T[]) => Promise<boolean> | boolean,
  isOutOfTime: () => boolean = () => false,
): Promise<T[]> {
  let smallest = [...items];
  let pieces = 2;
  while (smallest.length >= 2 && !isOutOfTime()) {
    const size = Math.ceil(smallest.length / pieces);
    const starts = Array.from({ length: Math.ceil(smallest.length / size) }, (_, piece) => piece * size);
    const smaller = await firstDefined(starts, isOutOfTime, async (start) => {
      const rest = [...smallest.slice(0, start), ...smallest.slice(start + size)];
      return rest.length > 0 && (await fails(rest)) ? rest : undefined;
    });
    if (smaller !== undefined) {
      smallest = smaller;
      pieces = Math.max(2, pieces - 1);
    } else if (size === 1) break;
    else pieces = Math.min(smallest.length, pieces * 2);
  }
  return smallest;
}

async function firstDefined<A, B>(
  items: readonly A[],
  isOutOfTime: () => boolean,
  tryItem: (item: A) => Promise<B | undefined>,
): Promise<B | undefined> {
  for (const item of items) {
    if (isOutOfTime()) return undefined;
    const answer = await tryItem(item);
    if (answer !== undefined) return answer;
  }
  return undefined;
}

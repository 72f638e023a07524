/*
 * Why this does not use fast-check, which shrinks too: fast-check can begin with a given case (`examples`
 * with `fc.subarray`), and it finds the same smallest parts. But it begins anew with large pieces after each
 * success, and it cannot try whole kinds of faults first. The table shows the mean number of calls of `fails`
 * in twenty random cases each. A call recovers from a disk, or runs a round that takes seconds, at most
 * twice.
 *
 *     missing writes, needed writes     64, 1   64, 2   64, 4   512, 1   512, 2   512, 4
 *     ddmin                                9      23      58       14       44      105
 *     fc.subarray                         11      36     122       14       74      276
 *     a tuple of fc.boolean               92     128     170      783      986    1,484
 *
 * For a schedule in which one of three kinds of faults is needed, fast-check took 10 to 15 calls, with an
 * `fc.record` of faults, producers and depth. `shrinkSchedule` takes four to eight, because it tries single
 * faults first.
 */

/**
 * Finds the smallest part of a list that still fails, by removing smaller and smaller pieces (Zeller's
 * ddmin). No single item can be removed from the result, if `fails` was right each time and the time was
 * sufficient.
 * @param items list for which `fails` is known to be true.
 * @param isOutOfTime true when there is no time for another call; then the smallest part known so far is
 *   returned.
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

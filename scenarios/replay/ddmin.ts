/**
 * The smallest part of a list that still fails, found by leaving out ever smaller pieces (Zeller's ddmin): no single
 * item of the result can be left out, as far as `fails` was right and there was time.
 * @param items of which `fails` is known to hold.
 * @param spent true when there is no time to ask once more; what is known then is returned.
 */
export async function ddmin<T>(
  items: readonly T[],
  fails: (part: readonly T[]) => Promise<boolean> | boolean,
  spent: () => boolean = () => false,
): Promise<T[]> {
  let known = [...items];
  let pieces = 2;
  while (known.length >= 2 && !spent()) {
    const size = Math.ceil(known.length / pieces);
    const starts = Array.from({ length: Math.ceil(known.length / size) }, (_, piece) => piece * size);
    const found = await firstOf(starts, spent, async (start) => {
      const rest = [...known.slice(0, start), ...known.slice(start + size)];
      return rest.length > 0 && (await fails(rest)) ? rest : undefined;
    });
    if (found !== undefined) {
      known = found;
      pieces = Math.max(2, pieces - 1);
    } else if (size === 1) break;
    else pieces = Math.min(known.length, pieces * 2);
  }
  return known;
}

async function firstOf<A, B>(
  items: readonly A[],
  spent: () => boolean,
  ask: (item: A) => Promise<B | undefined>,
): Promise<B | undefined> {
  for (const item of items) {
    if (spent()) return undefined;
    const answer = await ask(item);
    if (answer !== undefined) return answer;
  }
  return undefined;
}

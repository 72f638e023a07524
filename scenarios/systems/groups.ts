/**
 * Calls `run` for each item: one after the other for the items of a group, and for up to `jobs` groups at once. After
 * the first error no further call begins, and the signal of those under way is aborted.
 * @returns the results in the order of the items.
 * @throws the first error, when every call has ended; the reason of `signal` when it is aborted before the last call.
 */
export async function inGroups<Item, Result>(
  items: readonly Item[],
  groupOf: (item: Item) => string,
  jobs: number,
  signal: AbortSignal,
  run: (item: Item, signal: AbortSignal) => Promise<Result>,
): Promise<Result[]> {
  const groups = new Map<string, { item: Item; index: number }[]>();
  items.forEach((item, index) => {
    const group = groups.get(groupOf(item)) ?? [];
    group.push({ item, index });
    groups.set(groupOf(item), group);
  });
  const waiting = [...groups.values()];
  const failed = new AbortController();
  const either = AbortSignal.any([signal, failed.signal]);
  const results = new Map<number, Result>();
  const work = async () => {
    for (let group = waiting.shift(); group !== undefined; group = waiting.shift()) {
      for (const { item, index } of group) {
        either.throwIfAborted();
        results.set(index, await run(item, either));
      }
    }
  };
  const workers = Array.from({ length: jobs }, () =>
    work().catch((error: unknown) => {
      failed.abort(error);
    }),
  );
  await Promise.all(workers);
  either.throwIfAborted();
  return [...results].sort(([one], [other]) => one - other).map(([, result]) => result);
}

/**
 * Does `work` for every item, so many at a time, in their order.
 * @returns results in the order of the items; those that `stop` kept from being begun are missing at the end.
 */
export async function several<Item, Result>(
  items: readonly Item[],
  atATime: number,
  stop: AbortSignal,
  work: (item: Item, index: number) => Promise<Result>,
): Promise<Result[]> {
  const results: Result[] = [];
  let next = 0;
  const worker = async () => {
    while (next < items.length && !stop.aborted) {
      const index = next++;
      results[index] = await work(items[index] as Item, index);
    }
  };
  await Promise.all(Array.from({ length: Math.min(atATime, items.length) }, worker));
  return results.filter((result) => result !== undefined);
}

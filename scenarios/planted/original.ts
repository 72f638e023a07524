import { REFERENCE_TARGET } from '../../conformance/targets/reference.js';
import { gateRun } from './hunt-by-gate.js';
import type { HuntOptions } from './mode.js';
import { type OriginalRuns, referenceDigest } from './results.js';

/** Rounds count on from a gate's seed: gates whose seeds are so far apart share none. */
const SEEDS_APART = 1000;

/** Runs the gate so many times on the original, which has no bug in it: whatever turns red is a false alarm. */
export async function gateOriginal(
  count: number,
  jobs: number,
  options: HuntOptions,
  say: (line: string) => void,
): Promise<OriginalRuns> {
  const startMs = performance.now();
  const runs = { runs: 0, falseAlarms: 0, notMeasured: 0, errors: 0 };
  const numbers = Array.from({ length: count }, (_, index) => index);
  await several(numbers, jobs, options.signal, async (index) => {
    const seed = options.seed + index * SEEDS_APART;
    const ended = await gateRun(REFERENCE_TARGET, undefined, { ...options, seed }).catch(
      (error: unknown) => ({
        why: String(error),
        code: null,
      }),
    );
    if (options.signal.aborted) return;
    runs.runs++;
    if (!('result' in ended)) {
      runs.errors++;
      say(`gate ${runs.runs}, seed ${seed}: error: ${ended.why}`);
      return;
    }
    const { verdict, why, evidence, replay } = ended.result;
    if (verdict === 'fail') runs.falseAlarms++;
    if (verdict === 'not-measured') runs.notMeasured++;
    say(`gate ${runs.runs}, seed ${seed}: ${verdict}: ${why}`);
    if (verdict === 'fail') say(`  evidence in ${evidence}; again: ${replay}`);
  });
  const seconds = Math.round((performance.now() - startMs) / 1000);
  return { reference: referenceDigest(), ...runs, budgetSeconds: options.budgetMs / 1000, seconds };
}

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

import { join } from 'node:path';
import type { Implementation } from '../host/implementations.js';
import { packageRoot } from '../host/version.js';
import { runGateCommand } from './hunt-by-gate.js';
import type { HuntOptions } from './mode.js';
import { type OriginalRuns, referenceDigest } from './results.js';

/**
 * Distance between the seeds of two gates. The rounds of a gate use the seeds that follow the seed of the
 * gate, so that gates with a smaller distance could run the same rounds.
 */
const SEED_STRIDE = 1000;

/**
 * Runs the gate `count` times on an original reference implementation, `jobs` gates at a time. The
 * original has no planted bug, so each failed requirement is a false alarm.
 */
export async function gateOriginal(
  { name, targetFile }: Implementation,
  count: number,
  jobs: number,
  options: HuntOptions,
  log: (line: string) => void,
): Promise<OriginalRuns> {
  const startMs = performance.now();
  const target = join(packageRoot(), targetFile);
  const runs = { runs: 0, falseAlarms: 0, notMeasured: 0, errors: 0 };
  const runIndexes = Array.from({ length: count }, (_, index) => index);
  await mapConcurrently(runIndexes, jobs, options.signal, async (index) => {
    const seed = options.seed + index * SEED_STRIDE;
    const gateRun = await runGateCommand(target, undefined, { ...options, seed }).catch((error: unknown) => ({
      why: String(error),
      code: null,
    }));
    if (options.signal.aborted) return;
    runs.runs++;
    if (!('result' in gateRun)) {
      runs.errors++;
      log(`gate ${runs.runs}, seed ${seed}: error: ${gateRun.why}`);
      return;
    }
    const { verdict, why, evidence, replay } = gateRun.result;
    if (verdict === 'fail') runs.falseAlarms++;
    if (verdict === 'not-measured') runs.notMeasured++;
    log(`gate ${runs.runs}, seed ${seed}: ${verdict}: ${why}`);
    if (verdict === 'fail') log(`  evidence in ${evidence}; again: ${replay}`);
  });
  const seconds = Math.round((performance.now() - startMs) / 1000);
  return {
    implementation: name,
    referenceDigest: referenceDigest(name),
    ...runs,
    budgetSeconds: options.budgetMs / 1000,
    seconds,
  };
}

/**
 * Calls `work` for every item in order, for at most `concurrency` items at a time. Starts no further item
 * when `signal` is aborted.
 * @returns the results in the order of the items; items that were not started have no result.
 */
export async function mapConcurrently<Item, Result>(
  items: readonly Item[],
  concurrency: number,
  signal: AbortSignal,
  work: (item: Item, index: number) => Promise<Result>,
): Promise<Result[]> {
  const results: Result[] = [];
  let next = 0;
  const worker = async () => {
    while (next < items.length && !signal.aborted) {
      const index = next++;
      results[index] = await work(items[index] as Item, index);
    }
  };
  await Promise.all(Array.from({ length: Math.min(concurrency, items.length) }, worker));
  return results.filter((result) => result !== undefined);
}

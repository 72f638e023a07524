import { join } from 'node:path';
import { DATA_DIR } from '../../runtime/disks/local-disk.js';
import { RUN_VARIABLE } from '../../runtime/runtime.js';
import { restoreTimeouts } from '../inspectors/inspection.js';
import type { WorkerPlan } from '../inspectors/worker.js';
import { type Exploration, workerCount } from './exploration.js';
import type { CrashStateSource } from './run-on-target.js';
import type { StrategyRun } from './strategy-run.js';

/**
 * Number of states that a worker gets at once. It is small, because a state that hangs delays the others of
 * its batch.
 */
const BATCH_SIZE = 4;

/**
 * Mounts crash states, and lets the target's restore program report what each holds. Several workers run at
 * the same time; each mounts one state after the other.
 * @param log path of the log of writes from which `source` was opened.
 */
export async function runOnMounts(
  exploration: Exploration,
  strategyRun: StrategyRun,
  { name, recording, base, baseAt }: CrashStateSource,
  log: string,
): Promise<void> {
  const { options, pool, digests, endMs, registry, restore, run, workspace } = exploration;
  const { target } = options;
  const plans = Array.from(
    { length: workerCount(exploration, 'mount') },
    (_, worker): WorkerPlan => ({
      log,
      end: recording.model.entries.length,
      base,
      baseAt,
      restore: restore ?? [],
      env: { [RUN_VARIABLE]: registry.runId },
      ...restoreTimeouts(target, endMs),
      digests,
      mount: {
        ...workspace.makeSlot(`${name}-${worker}`, base),
        filesystem: run.filesystem,
        queue: join(DATA_DIR, target.crashStates?.queue ?? '.'),
      },
    }),
  );
  await pool.run(plans, strategyRun.jobs(), BATCH_SIZE, () => strategyRun.shouldStop());
}

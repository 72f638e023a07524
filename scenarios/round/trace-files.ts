import { rmSync } from 'node:fs';
import { Recorder } from '../../conformance/history/recorder.js';
import { recordReceipts } from '../../conformance/protocols/receipts.js';
import { protocolOf } from '../../conformance/protocols/registry/registry.js';
import type { Target } from '../../conformance/target-file/definition.js';
import type { Fault, FaultContext } from '../../faults/fault.js';
import { removeTree } from '../../faults/files/remove-tree.js';
import { hit, killServices } from '../../faults/injection.js';
import { DEFAULT_FILESYSTEM } from '../../faults/power/filesystem.js';
import { straceAvailability } from '../../faults/programs.js';
import { type FileHabit, fileHabits } from '../../faults/tracing/file-habits.js';
import { readStraceLog } from '../../faults/tracing/strace-log.js';
import { startTraced, traceLogOf } from '../../faults/tracing/traced-target.js';
import type { Registry } from '../host/registry.js';
import type { PreparedRuntime } from '../runtime/runtime.js';
import { runRound } from './round.js';

export interface TraceFilesOptions {
  target: Target;
  runtime: PreparedRuntime;
  registry: Registry;
  seed: number;
  /** Directory that is made for the run, and removed. */
  dir: string;
  signal: AbortSignal;
}

/** Number of confirmations after which the traced run ends. */
const CONFIRMS = 150;
/** Upper bound of the load of the traced run, in ms. The user waits for the report meanwhile. */
const LOAD_MS = 2500;
const START_TIMEOUT_MS = 15_000;

/**
 * Runs the target once more under load and strace, on an ordinary directory, to learn which service writes, syncs and
 * renames which files. It explains a loss that has happened; it judges nothing. Resolves to an empty list when strace
 * is missing, or when the target does not run under it.
 */
export async function traceFiles(options: TraceFilesOptions): Promise<FileHabit[]> {
  const { target, runtime, registry, seed, dir } = options;
  let habits: FileHabit[] = [];
  const ended = new AbortController();
  const tracing: Fault = {
    name: 'trace',
    family: 'tear',
    summary: 'logs what the services do to their files, then kills them',
    needs: { target: 'up', disk: 'any' },
    available: async () => straceAvailability(),
    async inject(context) {
      habits = await traceUnderLoad(context);
      // The round has no drain to wait for: nothing is judged.
      ended.abort();
      return hit('traced', 'all-processes', []);
    },
    heal: async () => {},
  };
  const supported = runtime.supports(tracing);
  if (!supported.available || !straceAvailability().available) return [];
  const recorder = new Recorder(`${dir}.jsonl`);
  try {
    const { disk } = await runRound({
      ...{ target, runtime, registry, dir, recorder },
      protocol: await protocolOf(target.protocol),
      receipts: recordReceipts(recorder),
      schedule: {
        ...{ seed, disk: 'any', producers: 4, depth: 6 },
        injections: [{ fault: tracing.name, afterConfirms: 1, maxWaitMs: 500 }],
      },
      faults: new Map([[tracing.name, tracing]]),
      power: 'blocklog',
      filesystem: DEFAULT_FILESYSTEM,
      number: 1,
      injectionsBefore: 0,
      signal: AbortSignal.any([options.signal, ended.signal]),
      startTimeoutMs: runtime.slowStartMs ?? START_TIMEOUT_MS,
      lastFaultMs: Number.POSITIVE_INFINITY,
      progress: () => {},
    });
    disk.remove();
  } catch {
    // The loss is proven without this run. A target that does not start under strace only costs the explanation.
    return habits;
  } finally {
    recorder.close();
    removeTree(dir);
    rmSync(`${dir}.jsonl`, { force: true });
  }
  return habits;
}

async function traceUnderLoad(context: FaultContext): Promise<FileHabit[]> {
  await killServices(context.services);
  await startTraced(context);
  await context.waitForConfirms(CONFIRMS, LOAD_MS);
  await killServices(context.services);
  const logs = context.services.map((service): [string, string] => {
    return [service.name, readStraceLog(traceLogOf(context, service))];
  });
  return fileHabits(new Map(logs), context.dataDir);
}

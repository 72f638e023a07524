import { join } from 'node:path';
import { EXIT_CODES } from '../../conformance/exit-codes.js';
import type { GateResult } from '../gate/result.js';
import { packageRoot } from '../host/version.js';
import { POWER_BACKENDS } from '../runtime/power-backends.js';
import type { PlantedBug } from './definition.js';
import {
  type HuntOptions,
  inconclusiveResult,
  judgeHunt,
  type ModeResult,
  type PlantedCopy,
} from './mode.js';
import { parseJsonOutput, runProgram } from './run-program.js';

/**
 * Time that a gate may take beyond its budget before it is stopped, in milliseconds. Installing, draining and
 * removing the target take this time.
 */
const GATE_OVERHEAD_MS = 60_000;
/**
 * Time that a gate in the lab VM may take beyond its budget before it is stopped, in milliseconds. The
 * processors of the VM may be emulated in software.
 */
const VM_GATE_OVERHEAD_MS = 400_000;

/** Path of the kit's compiled program. */
export const KIT_PROGRAM = join(packageRoot(), 'dist/scenarios/cli/main.js');

/** Runtime and power backend of a gate's power cuts. */
export interface PowerSource {
  runtime: 'process' | 'vm';
  backend: 'blocklog' | 'flakey';
}

/**
 * Runs a gate through the command line, as its users do.
 * @param faults names of the faults to inject; undefined means every fault that the target claims to survive.
 * @param power runtime and power backend; without it the gate runs plain processes and chooses the backend.
 * @returns the result of the gate, or the reason and the exit code when the gate printed no result.
 * @throws KitError kit-failed when the gate did not end in time, or printed something other than JSON.
 */
export async function runGateCommand(
  target: string,
  faults: readonly string[] | undefined,
  options: HuntOptions,
  power?: PowerSource,
): Promise<{ result: GateResult } | { why: string; code: number | null }> {
  const { seed, budgetMs } = options;
  const args = [KIT_PROGRAM, 'gate', target, '--json', '--seed', `${seed}`, '--budget', `${budgetMs}ms`];
  if (faults !== undefined) args.push('--faults', faults.join(','));
  if (power !== undefined) args.push('--runtime', power.runtime, '--power', power.backend);
  const overheadMs = power?.runtime === 'vm' ? VM_GATE_OVERHEAD_MS : GATE_OVERHEAD_MS;
  const ended = await runProgram(args, { ...options, timeoutMs: budgetMs + overheadMs });
  const result = parseJsonOutput(ended) as GateResult | undefined;
  if (result !== undefined) return { result };
  return {
    why: ended.lastStderrLines.at(-1) ?? `ended with ${ended.signal ?? `code ${ended.code}`}`,
    code: ended.code,
  };
}

/**
 * Hunts a bug with a gate that injects the faults that show it. The gate ends at the first violation. A bug
 * that only a rare order of events shows is not hunted.
 */
export async function huntByGate({ bug, target }: PlantedCopy, options: HuntOptions): Promise<ModeResult> {
  if (bug.shownBy === 'interleaving') {
    return inconclusiveResult(
      options.seed,
      'it takes an order of events that real processes come to too seldom',
    );
  }
  const faults = bug.shownBy === 'power' ? ['power-cut'] : bug.faults;
  return judgeGate(bug, await runGateCommand(target, faults, options), options.seed);
}

/** Judges from the result of a gate whether the gate found the bug. */
export function judgeGate(
  bug: PlantedBug,
  run: Awaited<ReturnType<typeof runGateCommand>>,
  seed: number,
): ModeResult {
  if (!('result' in run))
    return inconclusiveResult(seed, run.why, run.code === EXIT_CODES.notMeasured ? 'not-measured' : 'error');
  const { requirements, rounds, tookMs, why } = run.result;
  const failedRequirements = requirements.filter(({ verdict }) => verdict === 'fail').map(({ id }) => id);
  return judgeHunt(bug, failedRequirements, { runs: rounds, tookMs, seed: run.result.seed, why });
}

/**
 * The previous gate with flakey, for which the next such gate waits. There is only one lab VM, and it holds
 * the containers of only one target at a time.
 */
let previousFlakeyRun: Promise<unknown> = Promise.resolve();

/**
 * Hunts a bug with a gate whose power cuts use dm-flakey: on this machine if its kernel has dm-flakey,
 * otherwise in the lab VM, which must be up. Hunts only bugs that nothing but a power cut shows: for all
 * others it makes no difference how the power is cut.
 */
export async function huntByFlakey({ bug, target }: PlantedCopy, options: HuntOptions): Promise<ModeResult> {
  if (bug.shownBy !== 'power') return inconclusiveResult(options.seed, 'it takes no power cut to show it');
  const run = previousFlakeyRun.then(async () =>
    runGateCommand(target, ['power-cut'], options, await chooseFlakeySource()),
  );
  previousFlakeyRun = run.catch(() => undefined);
  return judgeGate(bug, await run, options.seed);
}

async function chooseFlakeySource(): Promise<PowerSource> {
  const local = await POWER_BACKENDS.find(({ name }) => name === 'flakey')?.available();
  return { runtime: local?.available ? 'process' : 'vm', backend: 'flakey' };
}

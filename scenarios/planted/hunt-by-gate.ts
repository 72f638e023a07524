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

/** Installing, draining and removing take time beyond a gate's budget. */
const GATE_OVERHEAD_MS = 60_000;
/** Where processors may be made in software. */
const VM_GATE_OVERHEAD_MS = 400_000;

/** The kit's own program. */
export const KIT_PROGRAM = join(packageRoot(), 'dist/scenarios/cli/main.js');

/** Where a gate's power cuts come from. */
export interface PowerSource {
  runtime: 'process' | 'vm';
  backend: 'blocklog' | 'flakey';
}

/**
 * Runs a gate as its users do.
 * @param power what to cut the power with; without it the gate chooses, and runs plain processes.
 * @returns its result; or, when it measured nothing, the reason.
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

/** The gate with the faults that show the bug, in short rounds; it stops at the first red. */
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

/** What a gate's run says of the bug. */
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

/** There is one lab VM, and its containers are one target's. */
let previousFlakeyRun: Promise<unknown> = Promise.resolve();

/**
 * The gate with power cuts by dm-flakey: on this machine's kernel where that has it, else in the lab VM, which must be up.
 * Only what nothing but a power cut shows is looked for: the rest does not depend on how the power is cut.
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

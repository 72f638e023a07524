import { randomInt } from 'node:crypto';
import { VERDICT_EXIT_CODES } from '../../conformance/exit-codes.js';
import type { Target } from '../../conformance/target-file/definition.js';
import { loadTarget } from '../../conformance/target-file/load.js';
import { REFERENCE_TARGET } from '../../conformance/targets/reference.js';
import { selectAndRunGate } from '../gate/gate.js';
import { claimedKinds } from '../gate/select-faults.js';
import { log } from '../host/console.js';
import { StatusLine } from '../host/status-line.js';
import { gateOutcome } from '../report/outcome.js';
import { chooseReporters, needEvidence, writeReports } from '../report/reporters/registry.js';
import { styleFor } from '../report/style.js';
import { isPowerSeed } from '../round/schedule.js';
import { type ChosenRuntimes, chooseProfile, onlyNeeded } from '../runtime/choice/profiles.js';
import { chooseRuntime } from '../runtime/choice/runtimes.js';
import { choosePowerBackend } from '../runtime/power-backends.js';
import type { PreparedRuntime, Runtime } from '../runtime/runtime.js';
import { requirePrograms } from './check/certain.js';
import {
  type FaultFlags,
  MAX_RANDOM_SEED,
  makeEmptyDirectory,
  replayCommandLine,
  unlessInterrupted,
} from './common.js';
import { requireNoHungDisk } from './hung-disks.js';
import type { Interrupts } from './interrupt.js';
import { offerReport } from './offer-report.js';
import { enterUserNamespace } from './user-namespace.js';

export interface GateFlags extends FaultFlags {
  seed?: number;
  budget: number;
  rounds?: number;
  injections?: number;
  out?: string;
  json?: boolean;
  reporter?: string[];
  keep?: boolean;
}

/** Runs the gate and reports the result. Resolves to the exit code. */
export async function gateCommand(
  file: string | undefined,
  flags: GateFlags,
  interrupts: Interrupts,
): Promise<number> {
  await requireNoHungDisk();
  const target = loadTarget(file ?? REFERENCE_TARGET);
  const reporters = chooseReporters(flags.reporter, flags.json === true);
  const { runtime, powerRuntime, power } = await chooseRuntimes(flags, target);
  enterUserNamespace(target, runtime.name);
  requirePrograms(target, file ?? REFERENCE_TARGET, runtime.name);
  const out = flags.out === undefined ? undefined : makeEmptyDirectory(flags.out);
  const startMs = performance.now();
  const status = new StatusLine(
    () => `preparing the runtime ${runtime.name}: ${Math.round((performance.now() - startMs) / 1000)} s`,
  );
  const prepared = await status.during(prepareAll(target, runtime, powerRuntime));
  const style = styleFor(process.stderr);
  const work = unlessInterrupted(
    interrupts,
    selectAndRunGate({
      target,
      ...prepared,
      wanted: flags.faults,
      power,
      profile: flags.profile,
      ...(flags.fs === undefined ? {} : { filesystem: flags.fs }),
      seed: flags.seed ?? drawSeed(powerRuntime !== undefined),
      budgetMs: flags.budget,
      ...(flags.rounds === undefined ? {} : { maxRounds: flags.rounds }),
      ...(flags.injections === undefined ? {} : { maxInjections: flags.injections }),
      out,
      keep: flags.keep === true || needEvidence(reporters),
      replay: (seed, only) =>
        replayCommandLine(
          file,
          // A round of these faults only is the first and only round of such a gate.
          only === undefined ? flags : { ...flags, faults: [...only], rounds: 1 },
          seed,
          flags.budget,
        ),
      replayExploration: (seed, budgetMs) =>
        replayCommandLine(
          file,
          { runtime: flags.runtime, ...filesystemOf(flags) },
          seed,
          budgetMs,
          'explore',
        ),
      signal: interrupts.signal,
      progress: (line) => log(style.faint(line)),
      watch: status.watch,
    }),
  );
  const outcome = await status.during(work);
  if ('exitCode' in outcome) return outcome.exitCode;
  const { result } = outcome;
  await writeReports(gateOutcome(result, file), reporters);
  if (!needEvidence(reporters)) await offerReport(result.verdict, result.evidence);
  return VERDICT_EXIT_CODES[result.verdict];
}

function filesystemOf({ fs }: FaultFlags): Pick<FaultFlags, 'fs'> {
  return fs === undefined ? {} : { fs };
}

/** Draws a seed. When power cuts have a runtime of their own, the first round is one of the other faults. */
function drawSeed(othersFirst: boolean): number {
  const seed = randomInt(MAX_RANDOM_SEED);
  return othersFirst && isPowerSeed(seed) ? seed + 1 : seed;
}

/** Chooses the runtimes that `--profile` or `--runtime` names, and the power backend. */
async function chooseRuntimes(flags: GateFlags, target: Target): Promise<Omit<ChosenRuntimes, 'notes'>> {
  if (flags.profile === undefined) {
    const runtime = await chooseRuntime(flags.runtime);
    return { runtime, power: await choosePowerBackend(flags.power, flags.fs, runtime.name) };
  }
  const kinds = claimedKinds(target, flags.faults);
  const { notes, ...chosen } = onlyNeeded(await chooseProfile(flags.profile, flags.power, flags.fs), kinds);
  const { runtime, powerRuntime, power } = chosen;
  const where = powerRuntime === undefined ? '' : ', runtime vm';
  const cuts = kinds.power ? `; power cuts by ${power}${where}` : '';
  log(`profile ${flags.profile}: runtime ${runtime.name}${cuts}`);
  for (const note of notes) log(`profile ${flags.profile}: ${note}`);
  return chosen;
}

/** Prepares the runtimes of a gate. When the second fails, the first is closed. */
async function prepareAll(
  target: Target,
  runtime: Runtime,
  powerRuntime: Runtime | undefined,
): Promise<{ runtime: PreparedRuntime; powerRuntime?: PreparedRuntime }> {
  const prepared = await runtime.prepare(target, log);
  if (powerRuntime === undefined) return { runtime: prepared };
  try {
    return { runtime: prepared, powerRuntime: await powerRuntime.prepare(target, log) };
  } catch (error) {
    await prepared.close?.();
    throw error;
  }
}

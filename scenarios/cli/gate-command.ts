import { randomInt } from 'node:crypto';
import { VERDICT_EXIT_CODES } from '../../conformance/exit-codes.js';
import { loadTarget } from '../../conformance/target-file/load.js';
import { REFERENCE_TARGET } from '../../conformance/targets/reference.js';
import { selectAndRunGate } from '../gate/gate.js';
import { log } from '../host/console.js';
import { StatusLine } from '../host/status-line.js';
import { gateOutcome } from '../report/outcome.js';
import { chooseReporters, writeReports } from '../report/reporters/registry.js';
import { styleFor } from '../report/style.js';
import { chooseRuntime } from '../runtime/choice/runtimes.js';
import { choosePowerBackend } from '../runtime/power-backends.js';
import {
  type FaultFlags,
  MAX_RANDOM_SEED,
  makeEmptyDirectory,
  replayCommandLine,
  unlessInterrupted,
} from './common.js';
import { requireNoHungDisk } from './hung-disks.js';
import type { Interrupts } from './interrupt.js';

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
  const runtime = await chooseRuntime(flags.runtime);
  const power = await choosePowerBackend(flags.power, flags.fs, runtime.name);
  const out = flags.out === undefined ? undefined : makeEmptyDirectory(flags.out);
  const startMs = performance.now();
  const status = new StatusLine(
    () => `preparing the runtime ${runtime.name}: ${Math.round((performance.now() - startMs) / 1000)} s`,
  );
  const prepared = await status.during(runtime.prepare(target, log));
  const style = styleFor(process.stderr);
  const work = unlessInterrupted(
    interrupts,
    selectAndRunGate({
      target,
      runtime: prepared,
      wanted: flags.faults,
      power,
      ...(flags.fs === undefined ? {} : { filesystem: flags.fs }),
      seed: flags.seed ?? randomInt(MAX_RANDOM_SEED),
      budgetMs: flags.budget,
      ...(flags.rounds === undefined ? {} : { maxRounds: flags.rounds }),
      ...(flags.injections === undefined ? {} : { maxInjections: flags.injections }),
      out,
      keep: flags.keep === true,
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
  return VERDICT_EXIT_CODES[result.verdict];
}

function filesystemOf({ fs }: FaultFlags): Pick<FaultFlags, 'fs'> {
  return fs === undefined ? {} : { fs };
}

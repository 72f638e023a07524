import { randomInt } from 'node:crypto';
import { loadTarget } from '../../conformance/target-file/load.js';
import { REFERENCE_TARGET } from '../../conformance/targets/reference.js';
import { gateOn } from '../gate/gate.js';
import { gateOutcome } from '../report/outcome.js';
import { chooseReporters, report } from '../report/reporters/by-name.js';
import { styleFor } from '../report/style.js';
import { runtimeNamed } from '../runtime/choice/runtimes.js';
import { choosePower } from '../runtime/power-backends.js';
import {
  emptyDirectory,
  type GroundFlags,
  gateLine,
  LARGEST_RANDOM_SEED,
  unlessInterrupted,
  VERDICT_EXIT_CODES,
} from './common.js';
import type { Interrupts } from './interrupt.js';

export interface GateFlags extends GroundFlags {
  seed?: number;
  budget: number;
  out?: string;
  json?: boolean;
  reporter?: string[];
  keep?: boolean;
}

/** Runs the gate and reports; resolves to the exit code. */
export async function gateCommand(
  file: string | undefined,
  flags: GateFlags,
  interrupts: Interrupts,
): Promise<number> {
  const say = (line: string) => void process.stderr.write(`${line}\n`);
  const target = loadTarget(file ?? REFERENCE_TARGET);
  const reporters = chooseReporters(flags.reporter, flags.json === true);
  const runtime = await runtimeNamed(flags.runtime);
  const power = await choosePower(flags.power, flags.fs, runtime.name);
  const out = flags.out === undefined ? undefined : emptyDirectory(flags.out);
  const prepared = await runtime.prepare(target, say);
  const style = styleFor(process.stderr);
  const ended = await unlessInterrupted(
    interrupts,
    gateOn({
      target,
      runtime: prepared,
      wanted: flags.faults,
      power,
      ...(flags.fs === undefined ? {} : { filesystem: flags.fs }),
      seed: flags.seed ?? randomInt(LARGEST_RANDOM_SEED),
      budgetMs: flags.budget,
      out,
      keep: flags.keep === true,
      replay: (seed) => gateLine(file, flags, seed, flags.budget),
      signal: interrupts.signal,
      progress: (line) => say(style.faint(line)),
    }),
  );
  if ('exitCode' in ended) return ended.exitCode;
  const { result } = ended;
  await report(gateOutcome(result, file), reporters);
  return VERDICT_EXIT_CODES[result.verdict];
}

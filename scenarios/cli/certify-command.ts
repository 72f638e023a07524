import { randomInt } from 'node:crypto';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { loadTarget } from '../../conformance/target-file/load.js';
import { REFERENCE_TARGET } from '../../conformance/targets/reference.js';
import { runCertify } from '../certify/certify.js';
import { newRunId, Registry, stateDirectory } from '../host/registry.js';
import { shellWord } from '../host/shell.js';
import { certifyOutcome } from '../report/outcome.js';
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

export interface CertifyFlags extends GroundFlags {
  seed?: number;
  budget: number;
  out?: string;
  json?: boolean;
  reporter?: string[];
}

/** Certifies a target and reports; resolves to the exit code. */
export async function certifyCommand(
  file: string | undefined,
  flags: CertifyFlags,
  interrupts: Interrupts,
): Promise<number> {
  const say = (line: string) => void process.stderr.write(`${line}\n`);
  const path = file ?? REFERENCE_TARGET;
  const target = loadTarget(path);
  const reporters = chooseReporters(flags.reporter, flags.json === true);
  const runtime = await runtimeNamed(flags.runtime);
  const power = await choosePower(flags.power, flags.fs, runtime.name);
  const registry = new Registry(newRunId());
  const own = join(stateDirectory(), 'certificates', registry.runId);
  const dir = emptyDirectory(flags.out ?? own);
  // Half a certificate is none: what a killed run has of it is for `clean`.
  if (dir === own) registry.made({ kind: 'directory', path: dir });
  const prepared = await runtime.prepare(target, say);
  const style = styleFor(process.stderr);
  const ended = await unlessInterrupted(
    interrupts,
    runCertify({
      target,
      file: path,
      runtime: prepared,
      power,
      ...(flags.fs === undefined ? {} : { filesystem: flags.fs }),
      seed: flags.seed ?? randomInt(LARGEST_RANDOM_SEED),
      budgetMs: flags.budget,
      dir,
      replay: (faults, seed) =>
        faults.join() === 'crash-states'
          ? gateLine(file, withoutPower(flags), seed, flags.budget, 'explore')
          : gateLine(file, { ...flags, faults: [...faults] }, seed, flags.budget),
      signal: interrupts.signal,
      progress: (line) => say(style.faint(line)),
    }).finally(async () => {
      await prepared.close?.();
      if (interrupts.signal.aborted) rmSync(dir, { recursive: true, force: true });
      registry.close();
    }),
  );
  if ('exitCode' in ended) return ended.exitCode;
  const { result } = ended;
  await report(certifyOutcome(result, file), reporters);
  for (const { level, result: run } of result.runs)
    if (run.bundle !== null) say(`one failure of ${level} again: plugpull replay ${shellWord(run.bundle)}`);
  return VERDICT_EXIT_CODES[result.certified.verdict];
}

/** States are explored on a recorded disk, whatever cuts the power elsewhere. */
function withoutPower({ power: _, ...flags }: GroundFlags): GroundFlags {
  return flags;
}

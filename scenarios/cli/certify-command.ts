import { randomInt } from 'node:crypto';
import { join } from 'node:path';
import { VERDICT_EXIT_CODES } from '../../conformance/exit-codes.js';
import { loadTarget } from '../../conformance/target-file/load.js';
import { REFERENCE_TARGET } from '../../conformance/targets/reference.js';
import { removeTree } from '../../faults/files/remove-tree.js';
import { runCertify } from '../certify/certify.js';
import { commandLine, pathFromHere } from '../host/command-line.js';
import { log } from '../host/console.js';
import { newRunId, Registry, stateDirectory } from '../host/registry.js';
import { certifyOutcome } from '../report/outcome.js';
import { chooseReporters, needEvidence, writeReports } from '../report/reporters/registry.js';
import { styleFor } from '../report/style.js';
import { chooseRuntime } from '../runtime/choice/runtimes.js';
import { choosePowerBackend } from '../runtime/power-backends.js';
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

export interface CertifyFlags extends FaultFlags {
  seed?: number;
  budget: number;
  out?: string;
  json?: boolean;
  reporter?: string[];
}

/** Certifies a target and reports the result. Resolves to the exit code. */
export async function certifyCommand(
  file: string | undefined,
  flags: CertifyFlags,
  interrupts: Interrupts,
): Promise<number> {
  await requireNoHungDisk();
  const path = file ?? REFERENCE_TARGET;
  const target = loadTarget(path);
  const reporters = chooseReporters(flags.reporter, flags.json === true);
  const runtime = await chooseRuntime(flags.runtime);
  enterUserNamespace(target, runtime.name);
  requirePrograms(target, path, runtime.name);
  const power = await choosePowerBackend(flags.power, flags.fs, runtime.name);
  const registry = new Registry(newRunId());
  const defaultDir = join(stateDirectory(), 'certificates', registry.runId);
  const dir = makeEmptyDirectory(flags.out ?? defaultDir);
  // An unfinished certificate is useless: register its directory, so that `clean` removes it after this run
  // was killed.
  if (dir === defaultDir) registry.made({ kind: 'directory', path: dir });
  const prepared = await runtime.prepare(target, log);
  const style = styleFor(process.stderr);
  const outcome = await unlessInterrupted(
    interrupts,
    runCertify({
      target,
      file: path,
      runtime: prepared,
      power,
      ...(flags.fs === undefined ? {} : { filesystem: flags.fs }),
      seed: flags.seed ?? randomInt(MAX_RANDOM_SEED),
      budgetMs: flags.budget,
      dir,
      replay: (faults, seed) =>
        faults.join() === 'crash-states'
          ? replayCommandLine(file, withoutPower(flags), seed, flags.budget, 'explore')
          : replayCommandLine(file, { ...flags, faults: [...faults] }, seed, flags.budget),
      signal: interrupts.signal,
      progress: (line) => log(style.faint(line)),
    }).finally(async () => {
      await prepared.close?.();
      if (interrupts.signal.aborted) removeTree(dir);
      registry.close();
    }),
  );
  if ('exitCode' in outcome) return outcome.exitCode;
  const { result } = outcome;
  await writeReports(certifyOutcome(result, file), reporters);
  for (const { level, result: run } of result.runs)
    if (run.bundle !== null)
      log(`one failure of ${level} again: ${commandLine('replay', pathFromHere(run.bundle))}`);
  if (!needEvidence(reporters)) await offerReport(result.certified.verdict, dir);
  return VERDICT_EXIT_CODES[result.certified.verdict];
}

/**
 * Removes the power backend: crash states are always explored on a recorded disk, whatever backend the
 * other levels use.
 */
function withoutPower({ power: _, ...flags }: FaultFlags): FaultFlags {
  return flags;
}

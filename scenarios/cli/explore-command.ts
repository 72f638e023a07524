import { randomInt } from 'node:crypto';
import { resolve } from 'node:path';
import { KitError } from '../../conformance/errors.js';
import { VERDICT_EXIT_CODES } from '../../conformance/exit-codes.js';
import type { Target } from '../../conformance/target-file/definition.js';
import { loadTarget } from '../../conformance/target-file/load.js';
import { REFERENCE_TARGET } from '../../conformance/targets/reference.js';
import { blocklogAvailability } from '../../faults/power/blocklog-availability.js';
import type { Filesystem } from '../../faults/power/filesystem.js';
import { runExplore } from '../explore/explore.js';
import { openSavedRecording, type SavedRecording } from '../explore/record/saved-recording.js';
import { commandLine } from '../host/command-line.js';
import { log } from '../host/console.js';
import { withFixIt } from '../host/fix-it.js';
import { exploreReport } from '../report/explore-report.js';
import { reportResult } from '../report/reporters/registry.js';
import { styleFor } from '../report/style.js';
import { chooseRuntime } from '../runtime/choice/runtimes.js';
import { requirePrograms } from './check/certain.js';
import {
  formatBudget,
  formatFilesystem,
  MAX_RANDOM_SEED,
  makeEmptyDirectory,
  unlessInterrupted,
} from './common.js';
import { requireNoHungDisk } from './hung-disks.js';
import type { Interrupts } from './interrupt.js';
import { offerReport } from './offer-report.js';
import { enterUserNamespace } from './user-namespace.js';

export interface ExploreFlags {
  runtime: string;
  fs?: Filesystem;
  recording?: string;
  seed?: number;
  budget: number;
  states?: number;
  out?: string;
  json?: boolean;
  keep?: boolean;
}

/** Explores the crash states of one recorded run and reports the result. Resolves to the exit code. */
export async function exploreCommand(
  file: string | undefined,
  flags: ExploreFlags,
  interrupts: Interrupts,
): Promise<number> {
  await requireNoHungDisk();
  const target = loadTarget(file ?? REFERENCE_TARGET);
  if (flags.runtime !== 'process')
    throw new KitError(
      'bad-usage',
      `--runtime ${flags.runtime}: crash states are explored under process only`,
    );
  const savedRecording = openRecording(flags, target);
  const runtime = await chooseRuntime(flags.runtime);
  enterUserNamespace(target, runtime.name);
  requirePrograms(target, file ?? REFERENCE_TARGET, runtime.name);
  const availability = blocklogAvailability(flags.fs?.type ?? savedRecording?.run.filesystem.type);
  if (!availability.available)
    throw new KitError('target-unavailable', `explore: ${availability.why}; ${availability.remedy}`);
  const out = flags.out === undefined ? undefined : makeEmptyDirectory(flags.out);
  const prepared = await runtime.prepare(target, log);
  const style = styleFor(process.stderr);
  const outcome = await unlessInterrupted(
    interrupts,
    runExplore({
      target,
      runtime: prepared,
      ...(flags.fs === undefined ? {} : { filesystem: flags.fs }),
      ...(savedRecording === undefined ? {} : { savedRecording }),
      seed: flags.seed ?? savedRecording?.seed ?? randomInt(MAX_RANDOM_SEED),
      budgetMs: flags.budget,
      ...(flags.states === undefined ? {} : { maxStates: flags.states }),
      out,
      keep: flags.keep === true,
      replay: (seed) => exploreCommandLine(file, flags, seed),
      signal: interrupts.signal,
      progress: (line) => log(style.faint(line)),
    }).finally(() => prepared.close?.()),
  );
  if ('exitCode' in outcome) return outcome.exitCode;
  const { result } = outcome;
  const data = { ...result, requirements: withFixIt(result.requirements) };
  reportResult(() => exploreReport(result, style), flags.json ? data : undefined);
  await offerReport(result.verdict, result.evidence);
  return VERDICT_EXIT_CODES[result.verdict];
}

function openRecording({ recording, fs }: ExploreFlags, target: Target): SavedRecording | undefined {
  if (recording === undefined) return undefined;
  if (target.nodes !== undefined)
    throw new KitError(
      'bad-usage',
      `--recording ${recording}: a target with several nodes is recorded anew each time, expected no --recording`,
    );
  if (fs !== undefined)
    throw new KitError('bad-usage', `--fs ${fs.type}: the filesystem is that of --recording ${recording}`);
  return openSavedRecording(resolve(recording), target);
}

function exploreCommandLine(file: string | undefined, flags: ExploreFlags, seed: number): string {
  const args = ['explore', ...(file === undefined ? [] : [file]), '--seed', `${seed}`];
  if (flags.recording !== undefined) args.push('--recording', flags.recording);
  if (flags.fs !== undefined) args.push('--fs', formatFilesystem(flags.fs));
  if (flags.states !== undefined) args.push('--states', `${flags.states}`);
  args.push('--budget', formatBudget(flags.budget));
  return commandLine(...args);
}

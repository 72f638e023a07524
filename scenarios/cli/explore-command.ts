import { randomInt } from 'node:crypto';
import { resolve } from 'node:path';
import { KitError } from '../../conformance/errors.js';
import type { Target } from '../../conformance/target-file/definition.js';
import { loadTarget } from '../../conformance/target-file/load.js';
import { REFERENCE_TARGET } from '../../conformance/targets/reference.js';
import { blocklogAvailability } from '../../faults/power/available.js';
import type { Filesystem } from '../../faults/power/filesystem.js';
import { runExplore } from '../explore/explore.js';
import { type KeptRecording, openRecordingIn } from '../explore/record/kept-recording.js';
import { shellWord } from '../host/shell.js';
import { exploreReport } from '../report/explore-report.js';
import { styleFor } from '../report/style.js';
import { runtimeNamed } from '../runtime/choice/runtimes.js';
import { emptyDirectory, LARGEST_RANDOM_SEED, unlessInterrupted, VERDICT_EXIT_CODES } from './common.js';
import type { Interrupts } from './interrupt.js';

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

/** Explores the crash states of one recorded run and reports; resolves to the exit code. */
export async function exploreCommand(
  file: string | undefined,
  flags: ExploreFlags,
  interrupts: Interrupts,
): Promise<number> {
  const say = (line: string) => void process.stderr.write(`${line}\n`);
  const target = loadTarget(file ?? REFERENCE_TARGET);
  if (flags.runtime !== 'process')
    throw new KitError(
      'bad-usage',
      `--runtime ${flags.runtime}: crash states are explored under process only`,
    );
  const recorded = recordingOf(flags, target);
  const runtime = await runtimeNamed(flags.runtime);
  const availability = blocklogAvailability(flags.fs?.type ?? recorded?.run.filesystem.type);
  if (!availability.available)
    throw new KitError('target-unavailable', `explore: ${availability.why}; ${availability.remedy}`);
  const out = flags.out === undefined ? undefined : emptyDirectory(flags.out);
  const prepared = await runtime.prepare(target, say);
  const style = styleFor(process.stderr);
  const ended = await unlessInterrupted(
    interrupts,
    runExplore({
      target,
      runtime: prepared,
      ...(flags.fs === undefined ? {} : { filesystem: flags.fs }),
      ...(recorded === undefined ? {} : { recorded }),
      seed: flags.seed ?? recorded?.seed ?? randomInt(LARGEST_RANDOM_SEED),
      budgetMs: flags.budget,
      ...(flags.states === undefined ? {} : { states: flags.states }),
      out,
      keep: flags.keep === true,
      replay: (seed) => replayLine(file, flags, seed),
      signal: interrupts.signal,
      progress: (line) => say(style.faint(line)),
    }).finally(() => prepared.close?.()),
  );
  if ('exitCode' in ended) return ended.exitCode;
  const { result } = ended;
  for (const line of exploreReport(result, style)) say(line);
  if (flags.json) process.stdout.write(`${JSON.stringify(result)}\n`);
  return VERDICT_EXIT_CODES[result.verdict];
}

function recordingOf({ recording, fs }: ExploreFlags, target: Target): KeptRecording | undefined {
  if (recording === undefined) return undefined;
  if (fs !== undefined)
    throw new KitError('bad-usage', `--fs ${fs.type}: the filesystem is that of --recording ${recording}`);
  return openRecordingIn(resolve(recording), target);
}

function replayLine(file: string | undefined, flags: ExploreFlags, seed: number): string {
  const words = ['plugpull', 'explore', ...(file === undefined ? [] : [file]), '--seed', `${seed}`];
  if (flags.recording !== undefined) words.push('--recording', flags.recording);
  if (flags.fs !== undefined)
    words.push('--fs', [flags.fs.type, flags.fs.mountOptions].filter(Boolean).join(':'));
  if (flags.states !== undefined) words.push('--states', `${flags.states}`);
  words.push('--budget', `${flags.budget}ms`);
  return words.map(shellWord).join(' ');
}

import { join, resolve } from 'node:path';
import { Stakes } from '../../conformance/checkers/crash-states.js';
import { KitError } from '../../conformance/errors.js';
import type { HistoryEvent } from '../../conformance/history/events.js';
import { readHistory } from '../../conformance/history/reader.js';
import { markOf } from '../../conformance/protocols/message.js';
import type { Target } from '../../conformance/target/definition.js';
import type { CrashModel } from '../../faults/crash-states/model.js';
import { type CrashState, formatState, parseState } from '../../faults/crash-states/state.js';
import { type Bundle, writeBundle } from '../bundle/bundle.js';
import type { StateCase } from '../bundle/manifest.js';
import { blame } from '../explore/blame.js';
import type { Found } from '../explore/found.js';
import type { Registry } from '../residue/registry.js';
import { processRuntime } from '../runtime/process-runtime.js';
import { stateLooker } from './look.js';
import { type RecordedDisk, recordedDiskIn } from './mounted-disk.js';
import type { ReplayResult } from './replay.js';
import { shrinkState, tellState } from './shrink-state.js';

export interface StateReplayOptions {
  target: Target;
  shrink: boolean;
  budgetMs: number;
  /** For the images. */
  dir: string;
  registry: Registry;
  signal: AbortSignal;
  progress(line: string): void;
}

/** Makes the disk of a bundle's crash state, recovers and judges it, exactly; with `shrink` looks for fewer missing writes. */
export async function replayState(
  bundle: Bundle,
  at: StateCase,
  options: StateReplayOptions,
): Promise<ReplayResult> {
  const { target, progress, registry, dir } = options;
  const disk = diskOf(bundle, at);
  const { model } = disk.recording;
  const events = readHistory(join(bundle.dir, 'history.jsonl'));
  const stakes = new Stakes(events);
  const state = stateOf(bundle, at, model);
  const runtime = await processRuntime.prepare(target, progress);
  const looker = stateLooker({
    target,
    at,
    disk,
    events,
    required: ({ prefix }) => stakes.idsOf(stakes.required({ prefix, reached: prefix + 1 })),
    dir: join(dir, 'states'),
    registry,
    runtime,
    signal: options.signal,
  });
  try {
    const failsWith = (crash: CrashState, found: Found) => lostIn(stakes, crash, found);
    const found = await looker.look(state);
    const lost = failsWith(state, found);
    progress(`${at.state}: ${tellFound(found, lost)}`);
    const red = lost.length > 0 || found.wrong > 0;
    let smallest = state;
    if (red && options.shrink) {
      const endMs = performance.now() + options.budgetMs;
      const spent = () => performance.now() > endMs || options.signal.aborted;
      smallest = await shrinkState(
        model,
        state,
        async (smaller) => {
          const seen = await looker.look(smaller);
          const again = failsWith(smaller, seen);
          // The same story made shorter, not another one.
          return lost.length > 0 ? again.some((id) => lost.includes(id)) : seen.wrong > 0;
        },
        spent,
      );
      progress(`smallest: ${formatState(smallest)}`);
    }
    const last = await looker.look(smallest);
    const story = tellStory(disk, at, events, stakes, smallest, failsWith(smallest, last), last);
    const shrunk =
      formatState(smallest) === formatState(state) ? null : await writeShrunk(bundle, at, smallest, story);
    const why = `${tellFound(found, lost)} in crash state ${at.state}`;
    return {
      bundle: bundle.file,
      target: target.name,
      kind: 'crash-state',
      requirements: bundle.manifest.requirements,
      verdict: red ? 'fail' : 'pass',
      why,
      runs: 1,
      reproduced: red ? 1 : 0,
      schedule: formatState(smallest),
      story,
      shrunk,
    };
  } finally {
    looker.close();
    disk.recording.close();
  }
}

/** @throws KitError bad-bundle when the bundle has no recorded disk, or a shorter log than it says. */
export function diskOf(bundle: Bundle, { end }: StateCase): RecordedDisk {
  const disk = recordedDiskIn(bundle.dir, end);
  if (disk === undefined)
    throw new KitError('bad-bundle', `${bundle.file}: expected a disk and its log in it`);
  return disk;
}

/** @throws KitError bad-bundle when no power cut can leave the state. */
export function stateOf({ file }: Bundle, { state: address }: StateCase, model: CrashModel): CrashState {
  const state = parsed(file, address);
  const problem = model.problem(state);
  if (problem !== undefined) throw new KitError('bad-bundle', `${file}: crash state ${address}: ${problem}`);
  return state;
}

function parsed(file: string, address: string): CrashState {
  try {
    return parseState(address);
  } catch (error) {
    throw new KitError('bad-bundle', `${file}: ${String(error)}`, { cause: error });
  }
}

/** Ids of the messages that the disk of a state must hold and does not. */
function lostIn(stakes: Stakes, { prefix, kept, torn }: CrashState, { live }: Found): string[] {
  const begun = kept.at(-1) === prefix || torn.has(prefix);
  return stakes.missing({ prefix, reached: prefix + (begun ? 1 : 0), live });
}

function tellFound({ recovered, wrong, detail }: Found, lost: readonly string[]): string {
  if (!recovered) return `no recovery: ${detail}, with ${lost.length} confirmed messages at stake`;
  if (lost.length > 0) return `${lost.length} confirmed messages are lost`;
  if (wrong > 0) return `${wrong} things are wrong: ${detail}`;
  return 'nothing is lost';
}

/** Confirmed here, not yet flushed, cut here, gone. */
function tellStory(
  { recording }: RecordedDisk,
  { run }: StateCase,
  events: readonly HistoryEvent[],
  stakes: Stakes,
  state: CrashState,
  [id]: readonly string[],
  found: Found,
): string[] {
  const cut = tellState(recording.model, state);
  const submitted = events.find((event) => event.kind === 'submitted' && event.id === id);
  const confirmedAt = id === undefined ? undefined : stakes.confirmedAt(id);
  if (submitted?.kind !== 'submitted' || confirmedAt === undefined)
    return [cut, found.detail].filter(Boolean);
  const lines = blame(recording, markOf(run, submitted.id), submitted.sizeBytes, confirmedAt);
  return [...lines.map((line) => `message ${submitted.id}: ${line}`), cut, `message ${submitted.id}: gone`];
}

async function writeShrunk(
  { file, dir, manifest }: Bundle,
  at: StateCase,
  state: CrashState,
  story: string[],
): Promise<string> {
  const to = resolve(file).replace(/(\.tar\.gz)?$/, '.small.tar.gz');
  const { target, seed, requirements, why } = manifest;
  const small = { ...at, state: formatState(state) };
  await writeBundle(to, dir, { target, seed, requirements, why, story, case: small });
  return to;
}

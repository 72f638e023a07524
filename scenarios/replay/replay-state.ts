import { join, resolve } from 'node:path';
import { Stakes } from '../../conformance/checkers/crash-states.js';
import type { HistoryEvent } from '../../conformance/history/events.js';
import { readHistory } from '../../conformance/history/reader.js';
import { markOf } from '../../conformance/protocols/message.js';
import type { Target } from '../../conformance/target-file/definition.js';
import type { CrashModel } from '../../faults/write-log/model.js';
import { type CrashState, formatState } from '../../faults/write-log/state.js';
import { type Bundle, writeBundle } from '../bundle/bundle.js';
import type { StateCase } from '../bundle/manifest.js';
import type { Found } from '../explore/inspectors/found.js';
import { blame } from '../explore/result/blame.js';
import { tellState } from '../explore/result/missing-writes.js';
import { placeIn } from '../explore/strategies/way.js';
import type { Registry } from '../host/registry.js';
import { processRuntime } from '../runtime/process/process-runtime.js';
import { caseDisk } from './case-disk.js';
import { stateLooker } from './look.js';
import type { RecordedDisk } from './mounted-disk.js';
import type { ReplayResult } from './replay.js';
import { shrinkState } from './shrink-state.js';

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
  const { disk, state, outer } = caseDisk(bundle, at, dir);
  const { model } = disk.recording;
  const addressOf = (inner: CrashState) =>
    [outer, inner].flatMap((one) => (one ? [formatState(one)] : [])).join('>');
  const events = readHistory(join(bundle.dir, 'history.jsonl'));
  const stakes = new Stakes(events);
  const runtime = await processRuntime.prepare(target, progress);
  const looker = stateLooker({
    target,
    at,
    disk,
    events,
    required: (crash) => {
      const { prefix } = outer ?? crash;
      return stakes.idsOf(stakes.required({ prefix, reached: prefix + 1 }));
    },
    dir: join(dir, 'states'),
    registry,
    runtime,
    signal: options.signal,
  });
  try {
    const failsWith = (crash: CrashState, { live }: Found) =>
      stakes.missing({ ...placeIn(outer ?? crash), live });
    const found = await looker.look(state);
    const lost = failsWith(state, found);
    progress(`${at.state}: ${tellFound(found, lost)}`);
    const red = isRed(found, lost);
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
          return isRed(seen, again) && (lost.length === 0 || again.some((id) => lost.includes(id)));
        },
        spent,
      );
      progress(`smallest: ${addressOf(smallest)}`);
    }
    const last = await looker.look(smallest);
    const lostThere = failsWith(smallest, last);
    const story =
      outer === undefined
        ? tellStory(disk, at, events, stakes, smallest, lostThere, last)
        : tellRecovery(model, outer, smallest, lostThere, last);
    const shrunk =
      formatState(smallest) === formatState(state)
        ? null
        : await writeShrunk(bundle, { ...at, state: addressOf(smallest) }, story);
    const why = `${tellFound(found, lost)} in crash state ${at.state}`;
    return {
      bundle: bundle.file,
      target: target.name,
      kind: 'crash-state',
      requirements: bundle.manifest.requirements,
      verdict: found.unmountable ? 'not-measured' : red ? 'fail' : 'pass',
      why,
      runs: 1,
      reproduced: red ? 1 : 0,
      schedule: addressOf(smallest),
      story,
      shrunk,
    };
  } finally {
    looker.close();
    disk.recording.close();
  }
}

/** What could not be mounted shows nothing, neither of the first state nor of a smaller one. */
function isRed({ recovered, wrong, unmountable }: Found, lost: readonly string[]): boolean {
  return !unmountable && (!recovered || lost.length > 0 || wrong > 0);
}

function tellFound({ recovered, wrong, detail, unmountable }: Found, lost: readonly string[]): string {
  if (unmountable) return `its disk cannot be mounted: ${detail}`;
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

/** What had survived the first cut did not survive the second. */
function tellRecovery(
  model: CrashModel,
  outer: CrashState,
  state: CrashState,
  [id]: readonly string[],
  { detail }: Found,
): string[] {
  const lines = [`the run was cut at ${formatState(outer)}, and the recovery from there again:`];
  lines.push(tellState(model, state));
  return [...lines, id === undefined ? detail : `message ${id}: gone`].filter(Boolean);
}

async function writeShrunk(
  { file, dir, manifest }: Bundle,
  small: StateCase,
  story: string[],
): Promise<string> {
  const to = resolve(file).replace(/(\.tar\.gz)?$/, '.small.tar.gz');
  const { target, seed, requirements, why } = manifest;
  await writeBundle(to, dir, { target, seed, requirements, why, story, case: small });
  return to;
}

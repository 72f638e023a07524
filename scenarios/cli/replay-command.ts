import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { KitError } from '../../conformance/errors.js';
import { readHistory } from '../../conformance/history/reader.js';
import { type Bundle, openBundle } from '../bundle/bundle.js';
import { targetOf } from '../bundle/target-of.js';
import { newRunId, Registry, stateDirectory } from '../host/registry.js';
import { shellWord } from '../host/shell.js';
import { kitVersion } from '../host/version.js';
import { type CaseDisk, caseDisk, tellPlace } from '../replay/case-disk.js';
import {
  byHand,
  mountState,
  type RecordedDisk,
  recordedDiskIn,
  stateBefore,
} from '../replay/mounted-disk.js';
import { type ReplayResult, removeWorkPlace, replayGate, workPlace } from '../replay/replay.js';
import { replayState } from '../replay/replay-state.js';
import { styleFor } from '../report/style.js';
import { VERDICT_EXIT_CODES } from './common.js';
import type { Interrupts } from './interrupt.js';

export interface ReplayFlags {
  target?: string;
  runtime?: string;
  runs: number;
  budget: number;
  shrink?: boolean;
  shell?: boolean;
  at?: number;
  json?: boolean;
}

/** Replays a bundle; resolves to the exit code. */
export async function replayCommand(
  file: string,
  flags: ReplayFlags,
  interrupts: Interrupts,
): Promise<number> {
  const say = (line: string) => void process.stderr.write(`${line}\n`);
  const registry = new Registry(newRunId());
  const place = workPlace(registry, stateDirectory());
  let keep = false;
  try {
    const bundle = await openBundle(resolve(file), join(place, 'bundle'));
    tellBundle(bundle, say);
    const target = targetOf(bundle.manifest, flags.target);
    if (flags.shell === true || flags.at !== undefined) {
      keep = flags.shell === true;
      for (const line of await openDisk(bundle, flags, place, registry, keep)) say(line);
      if (keep) for (const line of await byHand(target, dataOf(bundle, place))) say(line);
      if (keep) say(`remove it with: plugpull clean`);
      return 0;
    }
    const style = styleFor(process.stderr);
    const common = {
      target,
      budgetMs: flags.budget,
      shrink: flags.shrink === true,
      registry,
      signal: interrupts.signal,
      progress: (line: string) => say(style.faint(line)),
    };
    const { case: what } = bundle.manifest;
    const result = await (what.kind === 'crash-state'
      ? replayState(bundle, what, { ...common, dir: place })
      : replayGate(bundle, what, {
          ...common,
          runtime: runtimeOf(flags.runtime ?? what.runtime),
          runs: flags.runs,
        })
    ).catch((error: unknown) => {
      if (interrupts.exitCode() === undefined) throw error;
      return undefined;
    });
    const interrupted = interrupts.exitCode();
    if (result === undefined || interrupted !== undefined) return interrupted ?? 130;
    for (const line of reportOf(result)) say(line);
    if (flags.json) process.stdout.write(`${JSON.stringify(result)}\n`);
    return VERDICT_EXIT_CODES[result.verdict];
  } finally {
    // What stays is for `clean`, which knows it by the registry.
    if (!keep) {
      removeWorkPlace(registry, place);
      registry.close();
    }
  }
}

function runtimeOf(name: string): 'process' | 'docker' | 'vm' {
  if (name === 'process' || name === 'docker' || name === 'vm') return name;
  throw new KitError('bad-usage', `--runtime ${name}: expected process, docker or vm`);
}

function tellBundle({ manifest }: Bundle, say: (line: string) => void): void {
  say(`${manifest.target.definition.name}: ${manifest.why}`);
  for (const line of manifest.story) say(line);
  if (manifest.kitVersion !== kitVersion())
    say(`the bundle was made by version ${manifest.kitVersion}, this is ${kitVersion()}`);
  if (manifest.leftOut.length > 0) say(`too large for the bundle: ${manifest.leftOut.join(', ')}`);
}

/** Where the data of the target is that a bundle has: on the disk that was mounted, or as plain files. */
function dataOf({ dir, manifest }: Bundle, place: string): string {
  const mounted = join(place, 'disk', 'data');
  if (existsSync(mounted) || manifest.case.kind === 'crash-state') return mounted;
  return join(dir, `round-${manifest.case.round}`, 'data-at-end');
}

/** Finds the recorded disk, and says what it is; it is mounted when `keep`. */
async function openDisk(
  bundle: Bundle,
  { at }: ReplayFlags,
  place: string,
  registry: Registry,
  keep: boolean,
): Promise<string[]> {
  const { case: what } = bundle.manifest;
  const made = what.kind === 'crash-state' ? caseDisk(bundle, what, place) : undefined;
  const disk = made?.disk ?? recordedDiskIn(bundle.dir);
  if (disk === undefined) {
    if (at !== undefined) {
      throw new KitError(
        'bad-usage',
        `--at ${at}: this bundle has no recorded disk, expected one of a power cut`,
      );
    }
    return [`the target's data at the end of the failed run: ${dataOf(bundle, place)}`];
  }
  try {
    return tellDisk(bundle, at, place, registry, keep, disk, made);
  } finally {
    disk.recording.close();
  }
}

/** With `at` what there is at that place of its log; the disk is mounted, and stays so, only when `keep`. */
function tellDisk(
  { dir, manifest: { case: what } }: Bundle,
  at: number | undefined,
  place: string,
  registry: Registry,
  keep: boolean,
  disk: RecordedDisk,
  made: CaseDisk | undefined,
): string[] {
  const { model } = disk.recording;
  const count = model.entries.length;
  const ofRecovery = made?.outer !== undefined;
  const lines = [`the log${ofRecovery ? ' of the recovery' : ''} has ${count} entries`];
  let state = stateBefore(disk, at ?? count);
  let which = `before entry ${at ?? count}`;
  if (at !== undefined) {
    const placed = what.kind === 'crash-state' && !ofRecovery;
    const events = placed ? readHistory(join(dir, 'history.jsonl')) : [];
    lines.push(...tellPlace(model, at, events));
  } else if (made !== undefined && what.kind === 'crash-state') {
    state = made.state;
    which = `in crash state ${what.state}`;
  }
  if (!keep) return lines;
  const mountPoint = mountState(disk, state, what.filesystem, place, registry);
  return [...lines, `the disk ${which} is mounted on ${shellWord(mountPoint)}`];
}

function reportOf(result: ReplayResult): string[] {
  const what = result.kind === 'gate' ? 'schedule' : 'crash state';
  const lines = ['', `${what}: ${result.schedule}`, ...result.story, ''];
  lines.push(`${result.verdict}: ${result.why}`);
  if (result.shrunk !== null) lines.push(`a smaller bundle: plugpull replay ${shellWord(result.shrunk)}`);
  return lines;
}

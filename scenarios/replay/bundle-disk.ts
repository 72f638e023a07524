import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { KitError, messageOf } from '../../conformance/errors.js';
import type { HistoryEvent } from '../../conformance/history/events.js';
import { materialise, openRecording, type Recording } from '../../faults/crash-states/materialise.js';
import { copySparse } from '../../faults/power/mounts.js';
import type { CrashModel, ModelEntry } from '../../faults/write-log/model.js';
import { LogWritesError } from '../../faults/write-log/reader.js';
import { type CrashState, formatNumbers, parseState } from '../../faults/write-log/state.js';
import type { Bundle } from '../bundle/bundle.js';
import type { CrashStateCase } from '../bundle/manifest.js';
import { checkWithinDisk, openRecordedDisk, type RecordedDisk } from './mounted-disk.js';

/** A recorded disk, and the cut of it that is the crash state of a bundle. */
export interface BundleDisk {
  /**
   * Disk of the run. If a recovery was cut: disk of that recovery, which began with what the run's cut had
   * left.
   */
  disk: RecordedDisk;
  state: CrashState;
  /** Cut of the run from which the recovery began; undefined when no recovery was cut. */
  outer: CrashState | undefined;
}

/**
 * Opens the recorded disk of a bundle and parses its crash state. If a recovery was cut, also makes the disk
 * from which that recovery began.
 * @param dir directory for the disk from which the recovery began.
 * @throws KitError bad-bundle when the bundle has no recorded disk, when its log is shorter than the manifest
 *   states, or when the state is impossible.
 */
export function openBundleDisk(bundle: Bundle, stateCase: CrashStateCase, dir: string): BundleDisk {
  const { file } = bundle;
  const run = openRecordedDisk(bundle.dir, stateCase.end);
  if (run === undefined) throw new KitError('bad-bundle', `${file}: expected a disk and its log in it`);
  const [address = '', inner] = stateCase.state.split('>');
  try {
    const state = parsePossibleState(file, address, run.recording.model);
    if (inner === undefined) return { disk: run, state, outer: undefined };
    if (stateCase.recovery === undefined)
      throw new KitError(
        'bad-bundle',
        `${file}: crash state ${stateCase.state}: expected the log of its recovery`,
      );
    const disk = recoveryDisk(bundle, stateCase.recovery, run, state, dir);
    try {
      const innerState = parsePossibleState(file, inner, disk.recording.model);
      run.recording.close();
      return { disk, state: innerState, outer: state };
    } catch (error) {
      disk.recording.close();
      throw error;
    }
  } catch (error) {
    run.recording.close();
    throw error;
  }
}

/** Makes the disk from which a recovery began, in `dir`, and opens the log of that recovery. */
function recoveryDisk(
  bundle: Bundle,
  recovery: NonNullable<CrashStateCase['recovery']>,
  run: RecordedDisk,
  state: CrashState,
  dir: string,
): RecordedDisk {
  const recording = openRecoveryLog(bundle, recovery, statSync(run.image).size);
  try {
    const image = join(dir, 'recovery.img');
    copySparse(run.image, image);
    materialise(run.recording, state, image);
    return { image, recording };
  } catch (error) {
    recording.close();
    throw error;
  }
}

function openRecoveryLog(
  { file, dir }: Bundle,
  { log, end }: NonNullable<CrashStateCase['recovery']>,
  diskBytes: number,
): Recording {
  const path = join(dir, log);
  if (!existsSync(path)) throw new KitError('bad-bundle', `${file}: expected ${log} in it`);
  try {
    const recording = openRecording(path, end);
    checkWithinDisk(recording, diskBytes);
    return recording;
  } catch (error) {
    if (error instanceof LogWritesError) throw new KitError('bad-bundle', messageOf(error), { cause: error });
    throw error;
  }
}

function parsePossibleState(file: string, address: string, model: CrashModel): CrashState {
  let state: CrashState;
  try {
    state = parseState(address);
  } catch (error) {
    throw new KitError('bad-bundle', `${file}: ${messageOf(error)}`, { cause: error });
  }
  const problem = model.whyImpossible(state);
  if (problem !== undefined) throw new KitError('bad-bundle', `${file}: crash state ${address}: ${problem}`);
  return state;
}

/** Number of log entries that are listed before and after a position. */
const CONTEXT_ENTRIES = 3;
const MAX_NAMED_IDS = 5;
/** Upper bound of the open writes whose files are looked up. */
const MAX_NAMED_WRITES = 2000;

/** Returns the numbers of the entries whose files the description of a position names, ascending. */
export function entriesNamedAt(model: CrashModel, position: number): number[] {
  const first = Math.max(0, position - CONTEXT_ENTRIES);
  const nearby = model.entries.slice(first, position + CONTEXT_ENTRIES + 1).map(({ index }) => index);
  const open = model.optional(position).slice(0, MAX_NAMED_WRITES);
  return [...new Set([...open, ...nearby])].sort((one, other) => one - other);
}

/**
 * Describes a position of a log, as lines: the entries around it, the writes that a cut there may lose, and
 * the messages that are confirmed by then.
 * @param position number of complete entries, which is also the number of the next entry.
 * @param events history of the run that wrote the log; empty for the log of a recovery, in which nothing is
 *   confirmed.
 * @param owners files to which the writes belong, by entry; undefined when they are not known.
 */
export function describeLogPosition(
  model: CrashModel,
  position: number,
  events: readonly HistoryEvent[],
  owners?: ReadonlyMap<number, string>,
): string[] {
  const { entries } = model;
  const nearby = entries.slice(Math.max(0, position - CONTEXT_ENTRIES), position + CONTEXT_ENTRIES + 1);
  const lines = nearby.map(
    (entry) =>
      `${entry.index === position ? '>' : ' '} ${entry.index}: ${describeEntry(entry)}${describeOwner(entry, owners)}`,
  );
  if (position >= entries.length) lines.push(`> ${position}: the end of the log`);
  const open = model.optional(position);
  lines.push(
    open.length === 0
      ? `a cut here leaves nothing open: the last flush was entry ${model.durablePrefix(position)}`
      : `a cut here leaves open, since the last flush: ${formatNumbers(open)}`,
    ...describeOpenFiles(model, open, owners),
  );
  const confirmed = events.flatMap((event) =>
    event.kind === 'log-position' && event.what === 'confirmed' && event.entries <= position ? [event] : [],
  );
  if (confirmed.length === 0) return lines;
  const confirmedHere = confirmed
    .filter(({ entries: entriesThen }) => entriesThen === position)
    .map(({ id }) => id);
  const some = confirmedHere.slice(0, MAX_NAMED_IDS).join(', ');
  const more =
    confirmedHere.length > MAX_NAMED_IDS ? ` and ${confirmedHere.length - MAX_NAMED_IDS} more` : '';
  lines.push(
    `confirmed by now: ${confirmed.length} messages${confirmedHere.length === 0 ? '' : `, just now ${some}${more}`}`,
  );
  return lines;
}

/** Text for a write that belongs to no file: journal, inodes and maps of the filesystem. */
const NO_FILE = 'the filesystem itself';

function describeOwner({ index, lengthBytes }: ModelEntry, owners?: ReadonlyMap<number, string>): string {
  return owners === undefined || lengthBytes === 0 ? '' : ` (${owners.get(index) ?? NO_FILE})`;
}

/** Lists the files that open writes belong to, with the bytes of each; one line, or none. */
function describeOpenFiles(
  { entries }: CrashModel,
  open: readonly number[],
  owners?: ReadonlyMap<number, string>,
): string[] {
  if (owners === undefined || open.length === 0) return [];
  const bytes = new Map<string, number>();
  for (const index of open) {
    const owner = owners.get(index) ?? NO_FILE;
    bytes.set(owner, (bytes.get(owner) ?? 0) + (entries[index]?.lengthBytes ?? 0));
  }
  return [
    `these writes belong to: ${[...bytes].map(([owner, sum]) => `${owner} (${sum} bytes)`).join(', ')}`,
  ];
}

function describeEntry(entry: CrashModel['entries'][number]): string {
  if (entry.mark !== undefined) return `mark ${entry.mark}`;
  const what = entry.discard ? 'discard' : 'write';
  const range = entry.lengthBytes > 0 ? [`${what} of ${entry.lengthBytes} bytes at ${entry.offset}`] : [];
  const flags = [...(entry.flush ? ['flush'] : []), ...(entry.fua ? ['FUA'] : [])];
  return [...flags, ...range].join(', ');
}

import { existsSync, lstatSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { LostFile } from '../../../conformance/history/events.js';
import { regularFiles } from '../../../faults/files/walk.js';

/** The files of the data directory at one moment of the recorded run, as the target saw them. */
export interface FileSample {
  /** Number of log entries that were complete. */
  entries: number;
  /** Size in bytes by path. */
  sizes: Record<string, number>;
  /**
   * Identity of each file by path. A rename does not change it, and neither does a power cut. Absent if all identities are
   * those of the previous sample, and in samples of earlier versions.
   */
  identities?: Record<string, string>;
}

const INTERVAL_MS = 5;
/** A sample may take this share of the time, so that it does not slow the run under load. */
const MAX_TIME_SHARE = 0.05;
/** Upper bound of the samples of one run. */
const MAX_SAMPLES = 1000;
const FILE_NAME = 'file-samples.json';

/**
 * Lists the files of a data directory again and again while the target runs. It reads names and sizes only, out of the
 * page cache. After a cut they show what a file was to the target.
 */
export class FileSampler {
  readonly samples: FileSample[] = [];
  readonly #dataDir: string;
  readonly #entries: () => number;
  #timer: NodeJS.Timeout | undefined;
  #lastIdentities = '';

  /** @param entries returns the number of log entries that are complete now. */
  constructor(dataDir: string, entries: () => number) {
    this.#dataDir = dataDir;
    this.#entries = entries;
  }

  /** Takes samples while `work` runs, and ends in any case: a timer must not outlive the disk. */
  async during<Result>(work: () => Promise<Result>): Promise<Result> {
    this.start();
    try {
      return await work();
    } finally {
      this.stop();
    }
  }

  start(): void {
    const beginMs = performance.now();
    this.#take();
    if (this.samples.length >= MAX_SAMPLES) return;
    const pauseMs = Math.max(INTERVAL_MS, (performance.now() - beginMs) / MAX_TIME_SHARE);
    this.#timer = setTimeout(() => this.start(), pauseMs).unref();
  }

  /** Takes a last sample and ends. Must be called before the disk stops, because a stopped disk answers nothing. */
  stop(): void {
    clearTimeout(this.#timer);
    this.#take();
  }

  #take(): void {
    const sample = sampleFiles(this.#dataDir, this.#entries);
    if (sample === undefined) return;
    const { identities, ...rest } = sample;
    const text = JSON.stringify(identities);
    this.samples.push(text === this.#lastIdentities ? rest : sample);
    this.#lastIdentities = text;
  }
}

/** Lists the files now; undefined when they change too fast to be listed, or the disk does not answer. */
function sampleFiles(dataDir: string, entries: () => number): FileSample | undefined {
  try {
    // Count first: a file may be newer than the position of its sample, never older.
    return { entries: entries(), ...filesIn(dataDir) };
  } catch {
    return undefined;
  }
}

/** The regular files below a directory, by path. */
export interface FileList {
  sizes: Record<string, number>;
  /** Inode number and creation time: both are on the disk, and a rename changes neither. */
  identities: Record<string, string>;
}

/** Lists the regular files below a directory. */
export function filesIn(directory: string): FileList {
  const files: FileList = { sizes: {}, identities: {} };
  for (const file of regularFiles(directory)) {
    const stats = lstatSync(join(directory, file), { throwIfNoEntry: false, bigint: true });
    if (stats === undefined) continue;
    files.sizes[file] = Number(stats.size);
    files.identities[file] = `${stats.ino}:${stats.birthtimeNs}`;
  }
  return files;
}

/** A file that a crash state has under an earlier name. */
export interface UndoneRename {
  /** Name that the target had given it. */
  file: string;
  /** Name that it has in the crash state. */
  nameAfter: string;
  /** Number of log entries that were complete when the target was first seen to have it under its new name. */
  seenAt: number;
  /** False when it was seen only after the cut: the target may have renamed it after the cut. */
  certain: boolean;
}

/**
 * Finds the files that a crash state has under an earlier name than the target was seen to have given them.
 * @param prefix number of log entries that were complete at the cut.
 */
export function undoneRenames(
  samples: readonly FileSample[],
  { identities }: FileList,
  prefix: number,
): UndoneRename[] {
  const named = samples.filter((sample) => sample.identities !== undefined);
  const before = named.findLast(({ entries }) => entries <= prefix)?.identities ?? {};
  const nameInState = new Map(Object.entries(identities).map(([file, identity]) => [identity, file]));
  const renames = new Map<string, UndoneRename>();
  for (const { entries, identities: seen = {} } of named)
    for (const [file, identity] of Object.entries(seen)) {
      const nameAfter = nameInState.get(identity);
      // Two names of one file are links and not a rename.
      if (nameAfter === undefined || nameAfter === file || seen[nameAfter] === identity) continue;
      const isBefore = entries <= prefix;
      // Ignore a name that the file had lost again before the cut.
      if ((isBefore && before[file] !== identity) || renames.has(identity)) continue;
      renames.set(identity, { file, nameAfter, seenAt: entries, certain: isBefore });
    }
  return [...renames.values()];
}

/** A file that a crash state has lost, and where the target was seen to have it. */
export interface SeenLoss {
  lost: LostFile;
  /** Number of log entries that were complete when the target had the file with that size. */
  seenAt: number;
  /** False when the target may have removed the file itself around the cut. */
  certain: boolean;
}

/**
 * Compares the files of a crash state with those that the target saw around the cut: in the last sample before it, and
 * in the first one after it. A file that is in both counts with the smaller of its two sizes, so that a file that grew
 * or was cut short meanwhile is no loss. A file that is in one of them counts if the state has it with fewer bytes (in
 * the later one: with none, because it may just have begun to grow). If no file is lost by these rules, the list has
 * the files that existed before the cut and are not in the state; the target may have removed them itself.
 * @param sizes size of each file of the crash state.
 * @param prefix number of log entries that were complete at the cut.
 * @returns the lost files, the greatest loss first.
 */
export function lostSince(
  samples: readonly FileSample[],
  sizes: Readonly<Record<string, number>>,
  prefix: number,
): SeenLoss[] {
  const before = samples.findLast(({ entries }) => entries <= prefix);
  const after = samples.find(({ entries }) => entries >= prefix);
  if (before === undefined || after === undefined) return [];
  const found = (file: string, sizeBytes: number, seenAt: number, certain: boolean): SeenLoss => {
    const left = sizes[file] ?? null;
    const cacheBytes = sizeBytes - (left ?? 0);
    const lost = {
      file,
      sizeBytes,
      sizeAfterBytes: left,
      nameAfter: null,
      cacheBytes,
      driveBytes: 0,
      messages: [],
    };
    return { lost, seenAt, certain };
  };
  const proven: SeenLoss[] = [];
  const possible: SeenLoss[] = [];
  for (const file of new Set([...Object.keys(before.sizes), ...Object.keys(after.sizes)])) {
    const [early, late] = [before.sizes[file], after.sizes[file]];
    const left = sizes[file];
    if (early !== undefined && late !== undefined) {
      const sizeBytes = Math.min(early, late);
      if ((left ?? 0) < sizeBytes) proven.push(found(file, sizeBytes, before.entries, true));
    } else if (early !== undefined && (left ?? 0) < early) {
      if (left !== undefined) proven.push(found(file, early, before.entries, true));
      else possible.push(found(file, early, before.entries, false));
    } else if (late !== undefined && late > 0 && left === 0)
      proven.push(found(file, late, after.entries, true));
  }
  const list = proven.length > 0 ? proven : possible;
  return list.sort((one, other) => other.lost.cacheBytes - one.lost.cacheBytes);
}

/** Saves samples in an evidence directory. */
export function saveSamples(samples: readonly FileSample[], dir: string): void {
  writeFileSync(join(dir, FILE_NAME), `${JSON.stringify(samples)}\n`);
}

/** Reads the samples of an evidence directory; empty when it has none, as that of an older kit. */
export function readSamples(dir: string): FileSample[] {
  const file = join(dir, FILE_NAME);
  if (!existsSync(file)) return [];
  try {
    const value: unknown = JSON.parse(readFileSync(file, 'utf8'));
    return Array.isArray(value) ? value.filter(isSample) : [];
  } catch {
    return [];
  }
}

function isSample(value: unknown): value is FileSample {
  if (typeof value !== 'object' || value === null) return false;
  const { entries, sizes } = value as Record<string, unknown>;
  return typeof entries === 'number' && typeof sizes === 'object' && sizes !== null;
}

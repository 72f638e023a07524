import { type Dirent, lstatSync, readdirSync, type Stats } from 'node:fs';
import { join, resolve } from 'node:path';
import { messageOf } from '../../conformance/errors.js';
import { limit } from '../../conformance/limits.js';
import { entriesOf } from '../../faults/files/walk.js';
import { isRunId } from '../host/dead-runs.js';
import { allRegisteredRuns, runIdsOfThisProcess, stateDirectory } from '../host/registry.js';
import { pathExists, removeDirectory } from './clean.js';

/** Directories of the state directory that have one directory of evidence for each failed run. */
const EVIDENCE_FOLDERS = ['runs', 'replays', 'planted'];

/** Evidence of a run that has ended. */
export interface KeptRun {
  runId: string;
  path: string;
  /** Room that it takes on the disk, in bytes. */
  sizeBytes: number;
}

/**
 * Lists the evidence of ended runs, the newest first. Registered runs of any state directory are left out: they are
 * alive, or `clean` still has to remove them. A link is never followed, whether it is the state directory or something
 * in it: it may lead to the evidence of another one. Other kits may remove what is listed at any time.
 * @throws KitError bad-usage when a directory with lists of runs exists and cannot be read.
 */
export function keptRuns(stateDir = stateDirectory()): KeptRun[] {
  const state = resolve(stateDir);
  if (!isDirectory(state)) return [];
  const registered = new Set(allRegisteredRuns().map(({ runId }) => runId));
  const runs = EVIDENCE_FOLDERS.flatMap((folder) =>
    namesIn(join(state, folder)).flatMap((runId) => {
      const path = join(state, folder, runId);
      const isRun = isRunId(runId) && !registered.has(runId) && isDirectory(path);
      return isRun ? [{ runId, path, sizeBytes: sizeOnDisk(path) }] : [];
    }),
  );
  return runs.sort((one, other) => (one.runId < other.runId ? 1 : -1));
}

/**
 * Removes the oldest evidence in the state directory until the limits `kept-runs` and `kept-bytes` hold. The evidence
 * of the newest run always stays, and so does that of the runs of this process, which its report names.
 * @returns a line for people; undefined when nothing was removed.
 */
export function removeOldEvidence(stateDir = stateDirectory()): string | undefined {
  let count = 0;
  let bytes = 0;
  const runs = keptRuns(stateDir);
  const isOwn = ({ runId }: KeptRun) => runIdsOfThisProcess().has(runId);
  // Count the own runs first. The clock may have been set back, so that another run has a greater id.
  const old = [...runs.filter(isOwn), ...runs.filter((run) => !isOwn(run))].filter((run) => {
    count += 1;
    bytes += run.sizeBytes;
    const isBeyond = count > Math.max(1, limit('kept-runs')) || (count > 1 && bytes > limit('kept-bytes'));
    return isBeyond && !isOwn(run);
  });
  const { removed, problem } = removeRuns(old);
  if (removed.length === 0) return problem;
  const limits = `kept-runs=${limit('kept-runs')},kept-bytes=${limit('kept-bytes')}`;
  return `removed the evidence of ${describeRuns(removed)}, the oldest in ${stateDir} (PLUGPULL_LIMITS=${limits})`;
}

/** Removes the evidence of these runs. @returns what was removed, and the first problem as a line. */
export function removeRuns(runs: readonly KeptRun[]): { removed: KeptRun[]; problem: string | undefined } {
  let problem: string | undefined;
  const removed = runs.filter(({ path }) => {
    try {
      return removeDirectory(path);
    } catch (error) {
      // Another kit with the same state directory may have removed it meanwhile.
      if (!pathExists(path)) return false;
      problem ??= `the evidence ${path} cannot be removed: ${messageOf(error)}`;
      return false;
    }
  });
  return { removed, problem };
}

/** Describes runs by their number and size: `3 runs (12 MiB)`. */
export function describeRuns(runs: readonly KeptRun[]): string {
  const mebibytes = Math.ceil(runs.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0) / 2 ** 20);
  return `${runs.length} ${runs.length === 1 ? 'run' : 'runs'} (${mebibytes} MiB)`;
}

function namesIn(dir: string): string[] {
  if (!isDirectory(dir)) return [];
  try {
    return readdirSync(dir);
  } catch {
    return [];
  }
}

/** Returns what is known of a path itself, and not of what it links to; undefined when that is nothing. */
function statOf(path: string): Stats | undefined {
  try {
    return lstatSync(path, { throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}

function isDirectory(path: string): boolean {
  return statOf(path)?.isDirectory() === true;
}

/** Returns the room that a directory takes, in bytes. What cannot be read, or is removed meanwhile, counts as 0. */
function sizeOnDisk(dir: string): number {
  let entries: Dirent[] = [];
  try {
    entries = entriesOf(dir);
  } catch {
    return 0;
  }
  let bytes = 0;
  for (const entry of entries) {
    const path = join(dir, entry.name);
    bytes += entry.isDirectory() ? sizeOnDisk(path) : (statOf(path)?.blocks ?? 0) * 512;
  }
  return bytes;
}

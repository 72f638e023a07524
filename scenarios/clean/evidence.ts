import { lstatSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf } from '../../conformance/errors.js';
import { limit } from '../../conformance/limits.js';
import { entriesOf } from '../../faults/files/walk.js';
import { registeredRuns, stateDirectory } from '../host/registry.js';
import { removeDirectory } from './clean.js';

/** Directories of the state directory that have one directory of evidence for each failed run. */
const EVIDENCE_FOLDERS = ['runs', 'replays', 'planted'];
/** Matches the id of a run. The ids of later runs are greater. */
const RUN_ID = /^\d{8}-\d{6}-[0-9a-f]{8}$/;

/** Evidence of a run that has ended. */
export interface KeptRun {
  runId: string;
  path: string;
  /** Room that it takes on the disk, in bytes. */
  sizeBytes: number;
}

/** Lists the evidence of ended runs, the newest first. Runs that `clean` still has to remove are left out. */
export function keptRuns(stateDir = stateDirectory()): KeptRun[] {
  const registered = new Set(registeredRuns(stateDir).map(({ runId }) => runId));
  const runs = EVIDENCE_FOLDERS.flatMap((folder) =>
    namesIn(join(stateDir, folder)).flatMap((runId) => {
      const path = join(stateDir, folder, runId);
      const isRun = RUN_ID.test(runId) && !registered.has(runId) && lstatSync(path).isDirectory();
      return isRun ? [{ runId, path, sizeBytes: sizeOnDisk(path) }] : [];
    }),
  );
  return runs.sort((one, other) => (one.runId < other.runId ? 1 : -1));
}

/**
 * Removes the oldest evidence in the state directory until the limits `kept-runs` and `kept-bytes` hold. The evidence
 * of the newest run always stays.
 * @returns a line for people; undefined when nothing was removed.
 */
export function removeOldEvidence(stateDir = stateDirectory()): string | undefined {
  let count = 0;
  let bytes = 0;
  const old = keptRuns(stateDir).filter(({ sizeBytes }) => {
    count += 1;
    bytes += sizeBytes;
    return count > Math.max(1, limit('kept-runs')) || (count > 1 && bytes > limit('kept-bytes'));
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
  try {
    return readdirSync(dir);
  } catch {
    return [];
  }
}

function sizeOnDisk(dir: string): number {
  let bytes = 0;
  for (const entry of entriesOf(dir)) {
    const path = join(dir, entry.name);
    if (entry.isDirectory()) bytes += sizeOnDisk(path);
    else bytes += (lstatSync(path, { throwIfNoEntry: false })?.blocks ?? 0) * 512;
  }
  return bytes;
}

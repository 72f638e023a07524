import { EXIT_CODES } from '../../conformance/exit-codes.js';
import { clean } from '../clean/clean.js';
import { describeRuns, keptRuns, removeRuns } from '../clean/evidence.js';
import { commandLine } from '../host/command-line.js';
import { log, print, printJson } from '../host/console.js';
import { registryFile, stateDirectory } from '../host/registry.js';
import { imagesOnDisk, whyCacheRefused } from '../runtime/vm/lab/image-cache.js';
import { formatGigabytes } from './common.js';

interface CleanFlags {
  json?: boolean;
  evidence?: boolean;
  all?: boolean;
}

/**
 * Removes what killed runs left behind, with `evidence` also the evidence of failed runs, and prints what it removed.
 * Resolves to the exit code.
 */
export async function cleanCommand(flags: CleanFlags): Promise<number> {
  const cleaned = await clean(stateDirectory(), flags.all === true ? 'all' : 'this-directory');
  const kept = keptRuns();
  const { removed, problem } = removeRuns(flags.evidence ? kept : []);
  if (flags.json) printJson(flags.evidence ? { ...cleaned, evidence: removed.length } : cleaned);
  else {
    for (const {
      runId,
      containers,
      processes,
      mounts,
      loops,
      mappings,
      networks,
      directories,
      problems,
      notRemoved,
    } of cleaned.runs) {
      print(
        `${runId}: ${containers} containers, ${processes} processes, ${mounts} mounts, ${loops} loop devices, ${mappings} mapped devices, ${networks} networks, ${directories} directories removed`,
      );
      for (const problem of problems) print(`${runId}: left: ${problem}`);
      for (const line of notRemoved) print(`${runId}: not removed: ${line}`);
      if (notRemoved.length > 0)
        print(`${runId}: the run is forgotten when its list is removed: ${registryFile(runId) ?? ''}`);
    }
    for (const { file, why } of cleaned.refused) print(`not removed: what ${file} names, because ${why}`);
    for (const runId of cleaned.inUse) print(`${runId}: is running, left alone`);
    if (removed.length > 0) print(`the evidence of ${describeRuns(removed)} was removed`);
    if (cleaned.runs.length + cleaned.inUse.length + removed.length === 0) print('nothing was left');
  }
  // Scripts compare stdout: what may stay goes to stderr.
  if (problem !== undefined) log(problem);
  else if (kept.length > removed.length)
    log(`the evidence of ${describeRuns(kept)} stays: ${commandLine('clean', '--evidence')} removes it`);
  const images = labImages();
  if (images !== undefined && images.count > 0)
    log(
      `the image of the lab VM (${formatGigabytes(images.sizeBytes)} in ${images.dir}) stays: ${commandLine('lab', 'down', '--remove')} removes it`,
    );
  const isDone = cleaned.runs.every(({ problems, notRemoved }) => problems.length + notRemoved.length === 0);
  return isDone && problem === undefined ? EXIT_CODES.pass : EXIT_CODES.kitFailed;
}

/** Returns what the images of the lab VM take; undefined when their directory is not this user's own. */
function labImages(): ReturnType<typeof imagesOnDisk> | undefined {
  return whyCacheRefused() === undefined ? imagesOnDisk() : undefined;
}

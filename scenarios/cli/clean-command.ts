import { EXIT_CODES } from '../../conformance/exit-codes.js';
import { clean } from '../clean/clean.js';
import { print, printJson } from '../host/console.js';
import { registryFile } from '../host/registry.js';

/** Removes what killed runs left behind, and prints what it removed. Resolves to the exit code. */
export async function cleanCommand(flags: { json?: boolean }): Promise<number> {
  const cleaned = await clean();
  if (flags.json) printJson(cleaned);
  else {
    for (const {
      runId,
      containers,
      processes,
      mounts,
      loops,
      mappings,
      directories,
      problems,
      notRemoved,
    } of cleaned.runs) {
      print(
        `${runId}: ${containers} containers, ${processes} processes, ${mounts} mounts, ${loops} loop devices, ${mappings} mapped devices, ${directories} directories removed`,
      );
      for (const problem of problems) print(`${runId}: left: ${problem}`);
      for (const line of notRemoved) print(`${runId}: not removed: ${line}`);
      if (notRemoved.length > 0)
        print(`${runId}: the run is forgotten when its list is removed: ${registryFile(runId) ?? ''}`);
    }
    for (const { file, why } of cleaned.refused) print(`not removed: what ${file} names, because ${why}`);
    for (const runId of cleaned.inUse) print(`${runId}: is running, left alone`);
    if (cleaned.runs.length + cleaned.inUse.length === 0) print('nothing was left');
  }
  const isDone = cleaned.runs.every(({ problems, notRemoved }) => problems.length + notRemoved.length === 0);
  return isDone ? EXIT_CODES.pass : EXIT_CODES.kitFailed;
}

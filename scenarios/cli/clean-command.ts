import { EXIT_CODES } from '../../conformance/exit-codes.js';
import { clean } from '../clean/clean.js';
import { print, printJson } from '../host/console.js';
import { stateDirectory } from '../host/registry.js';

/** Removes what killed runs left behind, and prints what it removed. Resolves to the exit code. */
export async function cleanCommand(flags: { json?: boolean; all?: boolean }): Promise<number> {
  const cleaned = await clean(stateDirectory(), flags.all === true ? 'all' : 'this-directory');
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
    } of cleaned.runs) {
      print(
        `${runId}: ${containers} containers, ${processes} processes, ${mounts} mounts, ${loops} loop devices, ${mappings} mapped devices, ${directories} directories removed`,
      );
      for (const problem of problems) print(`${runId}: left: ${problem}`);
    }
    for (const runId of cleaned.inUse) print(`${runId}: is running, left alone`);
    if (cleaned.runs.length + cleaned.inUse.length === 0) print('nothing was left');
  }
  return cleaned.runs.some(({ problems }) => problems.length > 0) ? EXIT_CODES.kitFailed : EXIT_CODES.pass;
}

import { clean } from '../clean/clean.js';

/** Removes what killed runs left; prints what it did and resolves to the exit code. */
export async function cleanCommand(flags: { json?: boolean }): Promise<number> {
  const cleaned = await clean();
  if (flags.json) process.stdout.write(`${JSON.stringify(cleaned)}\n`);
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
      process.stdout.write(
        `${runId}: ${containers} containers, ${processes} processes, ${mounts} mounts, ${loops} loop devices, ${mappings} mapped devices, ${directories} directories removed\n`,
      );
      for (const problem of problems) process.stdout.write(`${runId}: left: ${problem}\n`);
    }
    for (const runId of cleaned.inUse) process.stdout.write(`${runId}: is running, left alone\n`);
    if (cleaned.runs.length + cleaned.inUse.length === 0) process.stdout.write('nothing was left\n');
  }
  return cleaned.runs.some(({ problems }) => problems.length > 0) ? 4 : 0;
}

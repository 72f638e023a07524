import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';
import { KitError } from '../../conformance/errors.js';
import type { Target } from '../../conformance/target-file/definition.js';
import { loadTarget, TargetFileError } from '../../conformance/target-file/load.js';
import { findProgram } from '../../faults/programs.js';

const BAD_TARGET = 2;

/**
 * Says what is wrong with a target file, a line for each problem: key path, and what was expected there. 0 when nothing is,
 * 2 when something is; nothing of the target is started.
 */
export function checkCommand(file: string, flags: { json?: boolean }): number {
  const problems = findProblems(file);
  if (flags.json) process.stdout.write(`${JSON.stringify({ ok: problems.length === 0, problems })}\n`);
  for (const problem of problems) process.stderr.write(`${file}: ${problem}\n`);
  if (problems.length === 0) process.stderr.write(`${file}: nothing is wrong\n`);
  return problems.length === 0 ? 0 : BAD_TARGET;
}

function findProblems(file: string): string[] {
  try {
    return findMissingPrograms(loadTarget(file));
  } catch (error) {
    if (error instanceof TargetFileError) return [...error.problems];
    if (error instanceof KitError) return [error.message.replace(`${file}: `, '')];
    throw error;
  }
}

/** Programs that are not on this machine; what runs in an image is looked for there. */
function findMissingPrograms({ dir, services, install, verify }: Target): string[] {
  const commands: [string, readonly string[] | undefined][] = [
    ...Object.entries(services).map(([name, { command, image }]): [string, readonly string[] | undefined] => [
      `services.${name}.command.0`,
      image === undefined ? command : undefined,
    ]),
    ['install.0', install],
    ['verify.0', verify],
  ];
  return commands.flatMap(([path, command]) => {
    const [program] = command ?? [];
    if (program === undefined || program === '{node}') return [];
    const full = program.replace('{dir}', dir);
    if (full.includes('/') ? isExecutable(full.startsWith('/') ? full : join(dir, full)) : findProgram(full))
      return [];
    return [`${path}: expected a program that can be run here, found ${full}`];
  });
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';
import { KitError } from '../../conformance/errors.js';
import { EXIT_CODES } from '../../conformance/exit-codes.js';
import type { Target } from '../../conformance/target-file/definition.js';
import { loadTarget, TargetFileError } from '../../conformance/target-file/load.js';
import { unusedDataProblems } from '../../conformance/target-file/placeholders.js';
import { findProgram } from '../../faults/programs.js';
import { log, printJson } from '../host/console.js';

/**
 * Checks a target file and reports each problem on one line: the path of the key, and what was expected
 * there. Starts nothing of the target.
 * @returns exit code 0 when there is no problem, otherwise 2.
 */
export function checkCommand(file: string, flags: { json?: boolean }): number {
  const problems = findProblems(file);
  if (flags.json) printJson({ ok: problems.length === 0, problems });
  for (const problem of problems) log(`${file}: ${problem}`);
  if (problems.length === 0) log(`${file}: nothing is wrong`);
  return problems.length === 0 ? EXIT_CODES.pass : EXIT_CODES.usage;
}

function findProblems(file: string): string[] {
  try {
    const target = loadTarget(file);
    return [...unusedDataProblems(target), ...findMissingPrograms(target)];
  } catch (error) {
    if (error instanceof TargetFileError) return [...error.problems];
    if (error instanceof KitError) return [error.message.replace(`${file}: `, '')];
    throw error;
  }
}

/**
 * Finds the programs that this machine does not have. Ignores programs that run in an image: the image must
 * have them.
 */
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

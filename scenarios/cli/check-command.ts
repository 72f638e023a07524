import { accessSync, constants, existsSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { KitError } from '../../conformance/errors.js';
import { EXIT_CODES } from '../../conformance/exit-codes.js';
import { commandsIn } from '../../conformance/target-file/commands.js';
import type { Target } from '../../conformance/target-file/definition.js';
import { loadTarget, TargetFileError } from '../../conformance/target-file/load.js';
import { unusedDataProblems } from '../../conformance/target-file/placeholders.js';
import { FAULTS } from '../../faults/catalogue/catalogue.js';
import { findProgram } from '../../faults/programs.js';
import { log, printJson } from '../host/console.js';
import { dockerRuntime } from '../runtime/docker/container-deployment.js';

/**
 * Checks a target file and reports each problem on one line: the path of the key, and what was expected
 * there. Starts nothing of the target. With `--runtime docker` it also looks into the images: they must have the
 * programs and users of the target, and the tools of the faults that the target claims.
 * @throws KitError bad-usage for another runtime, target-unavailable when no container engine answers or an image
 *   cannot be provided.
 * @returns exit code 0 when there is no problem, otherwise 2.
 */
export async function checkCommand(
  file: string,
  flags: { json?: boolean; runtime?: string },
): Promise<number> {
  const { runtime = 'process' } = flags;
  if (runtime !== 'process' && runtime !== 'docker')
    throw new KitError('bad-usage', `--runtime ${runtime}: expected process or docker`);
  const problems = findProblems(file);
  const images =
    runtime === 'docker' && problems.length === 0
      ? await lookIntoImages(loadTarget(file))
      : { problems: [], notes: [] };
  problems.push(...images.problems);
  const { notes } = images;
  if (flags.json) printJson({ ok: problems.length === 0, problems, ...(runtime === 'docker' && { notes }) });
  for (const note of notes) log(`${file}: ${note}`);
  for (const problem of problems) log(`${file}: ${problem}`);
  if (problems.length === 0) log(`${file}: nothing is wrong`);
  return problems.length === 0 ? EXIT_CODES.pass : EXIT_CODES.usage;
}

/** Looks into the images of a target. Notes name what runs there and the faults that cannot be injected. */
async function lookIntoImages(target: Target): Promise<{ problems: string[]; notes: string[] }> {
  const usable = await dockerRuntime.available();
  if (!usable.available)
    throw new KitError('target-unavailable', `--runtime docker: ${usable.why}; ${usable.remedy}`);
  try {
    const prepared = await dockerRuntime.prepare(target, log);
    const notes = Object.keys(target.services).map(
      (name) => `services.${name}: runs in the image ${prepared.imageOf?.(name) ?? ''}`,
    );
    for (const fault of FAULTS) {
      if (!(target.guarantee.faults as readonly string[]).includes(fault.family)) continue;
      const supported = prepared.supports(fault);
      if (!supported.available) notes.push(`${fault.name}: ${supported.why}; ${supported.remedy}`);
    }
    return { problems: [], notes };
  } catch (error) {
    if (error instanceof KitError && error.code === 'bad-target')
      return { problems: [error.message], notes: [] };
    throw error;
  }
}

function findProblems(file: string): string[] {
  try {
    const target = loadTarget(file);
    return [...unusedDataProblems(target), ...findMissingPrograms(target), ...findMissingFiles(target)];
  } catch (error) {
    if (error instanceof TargetFileError) return [...error.problems];
    if (error instanceof KitError) return [error.message.replace(`${file}: `, '')];
    throw error;
  }
}

/** A command of a target, with its key path. */
interface NamedCommand {
  path: string;
  command: readonly string[];
  /** True when the command runs in an image, which must then have the program. */
  inImage: boolean;
}

function commandsOf(target: Target): NamedCommand[] {
  return commandsIn(target).map(({ key, command, image }) => ({
    path: key.startsWith('services.') ? `${key}.command` : key,
    command,
    inImage: image !== undefined,
  }));
}

/**
 * Finds the programs that this machine does not have. Ignores programs that run in an image, because the image
 * must have them, and programs below `{dir}`, which `findMissingFiles` looks for.
 */
function findMissingPrograms(target: Target): string[] {
  return commandsOf(target).flatMap(({ path, command: [program = ''], inImage }) => {
    if (inImage || program === '{node}' || pathBelowDir(program) !== undefined) return [];
    if (program.includes('/')) {
      const full = resolve(target.dir, program.replace('{dir}', target.dir));
      return isExecutable(full)
        ? []
        : [`${path}.0: expected a program that can be run here, found ${describeFile(full)}`];
    }
    if (findProgram(program) !== undefined) return [];
    return [`${path}.0: expected a program that can be run here, found ${program}, which is not in PATH`];
  });
}

/**
 * Finds the files below `{dir}` that commands name and that do not exist. A file that `install` makes, such as
 * a compiled program, may be missing: the words of `install` then contain its path.
 */
function findMissingFiles(target: Target): string[] {
  const installWords = target.install ?? [];
  const isMade = (path: string) =>
    installWords.some((word) => word.includes(`{dir}/${path}`) && pathBelowDir(word) === undefined);
  return commandsOf(target).flatMap(({ path: key, command, inImage }) =>
    command.flatMap((word, index) => {
      const path = pathBelowDir(word);
      if (path === undefined || isMade(path)) return [];
      const full = join(target.dir, path);
      const isProgram = index === 0 && !inImage;
      if (isProgram ? isExecutable(full) : existsSync(full)) return [];
      const expected = isProgram ? 'a program that can be run here' : 'a file that exists';
      return [`${key}.${index}: expected ${expected}, found ${describeFile(full)}`];
    }),
  );
}

/** Returns the path below `{dir}` that a word such as `{dir}/queue.py` or `--file={dir}/a` names. */
function pathBelowDir(word: string): string | undefined {
  const path = /^(?:--?[\w-]+=)?\{dir\}\/([^{}]+)$/.exec(word)?.[1];
  // A word with a blank is a line for a shell, or a list. What it means is not known here.
  return path === undefined || /\s/.test(path) ? undefined : path;
}

function describeFile(path: string): string {
  if (!existsSync(path)) return `${path}, which does not exist`;
  return `${path}, which is not executable (chmod +x)`;
}

/** Checks whether a path is a regular file that this process may run. */
function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';
import { KitError } from '../../conformance/errors.js';
import { EXIT_CODES } from '../../conformance/exit-codes.js';
import type { Target } from '../../conformance/target-file/definition.js';
import { loadTarget, TargetFileError } from '../../conformance/target-file/load.js';
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
    return findMissingPrograms(loadTarget(file));
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

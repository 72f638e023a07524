import { existsSync } from 'node:fs';
import { dirname, isAbsolute, join, resolve } from 'node:path';
import { KitError } from '../../conformance/errors.js';
import { commandsIn } from '../../conformance/target-file/commands.js';
import type { Target, TargetFile } from '../../conformance/target-file/definition.js';
import { defineTarget, loadTarget } from '../../conformance/target-file/load.js';
import { REFERENCE_TARGET } from '../../conformance/targets/reference.js';
import { findProgram } from '../../faults/programs.js';
import type { Manifest } from './manifest.js';

/** Describes the target that failed, for the manifest of a bundle. */
export function describeTarget({ dir, ...definition }: Target): Manifest['target'] {
  const reference = dirname(REFERENCE_TARGET);
  return {
    definition,
    dir,
    builtin: dir === reference,
    requiredFiles: [...new Set(argumentsOf(definition))].filter((argument) => {
      const path = pathIn(argument, dir);
      return path !== undefined && existsSync(path);
    }),
  };
}

/**
 * Returns the target of a bundle on this machine: the target of `file` if given, otherwise the target that
 * the bundle describes.
 * @throws KitError bad-target (exit code 2) when the target is not installed here.
 */
export function resolveTarget({ target }: Manifest, file: string | undefined): Target {
  if (file !== undefined) return loadTarget(file);
  const { definition, requiredFiles } = target;
  const dir = targetDirOf(target);
  // The same checks as for a target file: a bundle may come from a stranger.
  const checked = defineTarget(definition, dir);
  const missing = [
    ...requiredFiles.map((argument) => pathIn(argument, dir) ?? argument).filter((path) => !existsSync(path)),
    ...programsOf(definition).filter((program) => !isInstalled(program)),
  ];
  if (missing.length === 0) return checked;
  throw new KitError(
    'bad-target',
    `the target ${definition.name} is not installed here: expected ${missing.join(', ')}; say where it is with --target FILE`,
  );
}

/** Returns the directory that `{dir}` stands for when a replay runs the commands of a bundle. */
export function targetDirOf({ builtin, dir }: Manifest['target']): string {
  return builtin ? dirname(REFERENCE_TARGET) : resolve(dir);
}

/** Returns the path on this machine that an argument of a command names; undefined when it names none. */
function pathIn(argument: string, dir: string): string | undefined {
  if (argument.startsWith('{dir}/')) return join(dir, argument.slice('{dir}/'.length));
  return isAbsolute(argument) && !argument.includes('{') ? argument : undefined;
}

function argumentsOf(target: TargetFile): string[] {
  return commandsIn(target).flatMap(({ command }) => command);
}

/** Returns the programs of the commands that run on this machine, except placeholders. */
function programsOf(target: TargetFile): string[] {
  const local = commandsIn(target).filter(({ image }) => image === undefined);
  const programs = local.flatMap(({ command: [program] }) => (program === undefined ? [] : [program]));
  return [...new Set(programs)].filter((program) => !program.includes('{'));
}

function isInstalled(program: string): boolean {
  return isAbsolute(program) ? existsSync(program) : findProgram(program) !== undefined;
}

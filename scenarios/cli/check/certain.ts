import { existsSync } from 'node:fs';
import { basename, join } from 'node:path';
import { commandsIn } from '../../../conformance/target-file/commands.js';
import type { Target } from '../../../conformance/target-file/definition.js';
import { TargetFileError } from '../../../conformance/target-file/load.js';
import { lookForPrograms } from './programs.js';

/** Programs whose first argument is the script that they run, unless it begins with a dash. */
const INTERPRETERS =
  /^(node|nodejs|bun|python[\d.]*|pypy[\d.]*|ruby|perl|php|lua[\d.]*|sh|bash|dash|zsh|Rscript)$/;

/**
 * Refuses a target whose programs or scripts are missing, before a run starts anything. `check` reports more; here only
 * those are errors that no start could survive. A file that a command could still make is none of them: with `install`,
 * everything but the program of `install` itself.
 * @param runtime name of the runtime. Under other runtimes than `process`, programs come from images.
 * @throws TargetFileError (exit code 2) that names each missing program as `check` does.
 */
export function requirePrograms(target: Target, file: string, runtime: string): void {
  if (runtime !== 'process') return;
  const fatal = new Set(
    commandsIn(target).flatMap(({ key, command: [program = '', script = ''], image, env }) => {
      if (target.install !== undefined && key !== 'install') return [];
      // A service that needs no program here, or finds it elsewhere.
      if (image !== undefined || env?.PATH !== undefined) return [];
      const path = key.startsWith('services.') ? `${key}.command` : key;
      const relative = program.includes('/') && !program.startsWith('/') && !program.startsWith('{dir}/');
      return [
        ...(relative ? [] : [`${path}.0`]),
        ...(isMissingScript(target, program, script) ? [`${path}.1`] : []),
      ];
    }),
  );
  const problems = lookForPrograms(target).problems.filter((problem) =>
    fatal.has(problem.slice(0, problem.indexOf(':'))),
  );
  if (problems.length > 0) throw new TargetFileError(file, problems);
}

function isMissingScript({ dir }: Target, program: string, script: string): boolean {
  const runsScripts = program === '{node}' || INTERPRETERS.test(basename(program));
  return runsScripts && script.startsWith('{dir}/') && !existsSync(join(dir, script.slice('{dir}/'.length)));
}

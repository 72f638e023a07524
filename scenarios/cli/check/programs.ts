import { accessSync, closeSync, constants, existsSync, openSync, readSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { commandsIn } from '../../../conformance/target-file/commands.js';
import type { Target } from '../../../conformance/target-file/definition.js';
import { findProgram } from '../../../faults/programs.js';

/** Longest first line of a script that the kernel reads. */
const MAX_FIRST_LINE_BYTES = 256;

/** The program of one command of the target. */
export interface ProgramOutlook {
  /** Path of the key of its command. */
  key: string;
  program: string;
  /** Path at which it was found; null if `install` makes it, or if the image has it. */
  path: string | null;
  /** Interpreter of a script. */
  interpreter?: string;
  /** Why it is not looked for here. */
  note?: string;
}

/** The programs and files that the commands of a target name, and the problems with them. */
export interface ProgramsFound {
  programs: ProgramOutlook[];
  /** Each as `key path: what was expected`. */
  problems: string[];
}

/** Looks for the programs of all commands, for the interpreters of scripts, and for the files below `{dir}`. */
export function lookForPrograms(target: Target): ProgramsFound {
  const found = commandsIn(target).map(({ key, command, image }) =>
    lookForProgram(target, {
      path: key.startsWith('services.') ? `${key}.command` : key,
      command,
      inImage: image !== undefined,
    }),
  );
  const missingPrograms = found.filter(({ program }) => !program.program.startsWith('{dir}/'));
  const belowDir = found.filter(({ program }) => program.program.startsWith('{dir}/'));
  return {
    programs: found.map(({ program }) => program),
    problems: [
      ...missingPrograms.flatMap(({ problems }) => problems),
      ...missingFiles(target),
      ...belowDir.flatMap(({ problems }) => problems),
    ],
  };
}

interface NamedCommand {
  path: string;
  command: readonly string[];
  /** True when the command runs in an image, which must then have the program. */
  inImage: boolean;
}

function lookForProgram(
  target: Target,
  { path: key, command: [program = ''], inImage }: NamedCommand,
): { program: ProgramOutlook; problems: string[] } {
  const outlook = (path: string | null, more: Partial<ProgramOutlook> = {}) => ({
    key,
    program,
    path,
    ...more,
  });
  if (program === '{node}') return { program: outlook(process.execPath), problems: [] };
  if (inImage) return { program: outlook(null, { note: 'in its image' }), problems: [] };
  const below = pathBelowDir(program);
  if (below !== undefined && isMadeByInstall(target, below) && !existsSync(join(target.dir, below)))
    return { program: outlook(null, { note: 'made by install' }), problems: [] };
  const full = program.includes('/')
    ? resolve(target.dir, program.replace('{dir}', target.dir))
    : findProgram(program);
  const expected = `${key}.0: expected a program that can be run here, found`;
  if (full === undefined)
    return { program: outlook(null), problems: [`${expected} ${program}, which is not in PATH`] };
  if (!isExecutable(full)) {
    // `missingFiles` reports a program below {dir}.
    const problems = below === undefined ? [`${expected} ${describeFile(full)}`] : [];
    return { program: outlook(null), problems };
  }
  const interpreter = interpreterOf(full);
  if (interpreter === undefined) return { program: outlook(full), problems: [] };
  const isThere = interpreter.includes('/')
    ? isExecutable(interpreter)
    : findProgram(interpreter) !== undefined;
  return {
    program: outlook(full, { interpreter }),
    problems: isThere ? [] : [`${expected} ${full}, whose interpreter ${interpreter} does not exist here`],
  };
}

/** Returns the program that runs a script: the one in its first line, or after `/usr/bin/env` the name that follows. */
function interpreterOf(file: string): string | undefined {
  let head = '';
  try {
    const fd = openSync(file, 'r');
    try {
      const bytes = Buffer.alloc(MAX_FIRST_LINE_BYTES);
      head = bytes.toString('latin1', 0, readSync(fd, bytes, 0, bytes.length, 0));
    } finally {
      closeSync(fd);
    }
  } catch {
    // A program that this user can run but not read is not a script: its interpreter could not read it either.
    return undefined;
  }
  const words = /^#!\s*([^\n]+)/.exec(head)?.[1]?.trim().split(/\s+/) ?? [];
  if (!words[0]?.endsWith('/env')) return words[0];
  return words.slice(1).find((word) => !word.startsWith('-') && !word.includes('=')) ?? words[0];
}

/**
 * Finds the files below `{dir}` that commands name and that do not exist. A file that `install` makes, such as
 * a compiled program, may be missing: the words of `install` then contain its path.
 */
function missingFiles(target: Target): string[] {
  return commandsIn(target).flatMap(({ key, command, image }) =>
    command.flatMap((word, index) => {
      const path = pathBelowDir(word);
      if (path === undefined || isMadeByInstall(target, path)) return [];
      const full = join(target.dir, path);
      const isProgram = index === 0 && image === undefined;
      if (isProgram ? isExecutable(full) : existsSync(full)) return [];
      const expected = isProgram ? 'a program that can be run here' : 'a file that exists';
      const where = key.startsWith('services.') ? `${key}.command` : key;
      return [`${where}.${index}: expected ${expected}, found ${describeFile(full)}`];
    }),
  );
}

function isMadeByInstall({ install = [] }: Target, path: string): boolean {
  return install.some((word) => word.includes(`{dir}/${path}`) && pathBelowDir(word) === undefined);
}

/** Returns the path below `{dir}` that a word such as `{dir}/queue.py` or `--file={dir}/a` names. */
function pathBelowDir(word: string): string | undefined {
  const path = /^(?:--?[\w-]+=)?\{dir\}\/([^{}]+)$/.exec(word)?.[1];
  // A word with a space may be a shell command or a list. The path in it is not known here.
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

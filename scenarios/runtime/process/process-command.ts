import { accessSync, constants, statSync } from 'node:fs';
import { delimiter, resolve } from 'node:path';
import { targetEnvironment } from '../../host/registry.js';
import type { BootView } from '../boot/boot-view.js';
import type { UserAccount } from './users.js';

/** A command of a target, before it is prepared for a start. */
export interface RawCommand {
  command: readonly string[];
  /** Name or number of the user. Default: the kit's user. */
  user?: string | undefined;
  /** Environment variables of the target file. */
  serviceEnv?: Readonly<Record<string, string>>;
  /** Command that a fault puts before the service's command, such as strace. */
  wrap?: readonly string[];
  /** Environment variables that a fault sets. */
  env?: Readonly<Record<string, string>>;
}

/** A command as it is given to `spawn`. */
export interface StartCommand {
  program: string;
  args: string[];
  env: Readonly<Record<string, string | undefined>>;
}

/** The part of a boot that starts need. */
export type Boot = Pick<BootView, 'enter' | 'mayHave'>;

/** Prepares a command of a target for a start. */
export type ProcessCommand = (command: RawCommand) => StartCommand;

/**
 * Makes the function that prepares commands: they run in the current boot and as their user.
 * @param accounts accounts of the users that the target names.
 * @param outermost command that precedes everything else, such as the one that enters the network of a node.
 */
export function processCommands(
  boot: Boot,
  accounts: ReadonlyMap<string, UserAccount>,
  workingDir: string,
  outermost: readonly string[] = [],
): ProcessCommand {
  return ({ command, user, serviceEnv = {}, wrap = [], env = {} }) => {
    const account = user === undefined ? undefined : accounts.get(user);
    // The state directory is the kit's own: a target has no use for it.
    const outer = { ...targetEnvironment(), ...account?.env, ...serviceEnv };
    // Other programs start the command. If they did not find it, that would look like an exit of the command.
    requireProgram(boot, command[0], workingDir, outer.PATH ?? '');
    // A fault's variables are for the target alone: a preloaded library would also act on the programs that
    // enter the boot, and leave its files in the /dev/shm of the machine.
    const variables = Object.entries(env).map(([name, value]) => `${name}=${value}`);
    const inner = [...wrap, ...(account?.command ?? []), ...command];
    const [program = '', ...args] = [
      ...outermost,
      ...boot.enter(variables.length > 0 ? ['env', ...variables, ...inner] : inner),
    ];
    return { program, args, env: outer };
  };
}

/** @throws Error as `spawn` does when a program does not exist or may not be executed. */
function requireProgram(boot: Boot, program: string | undefined, workingDir: string, path: string): void {
  if (program === undefined) throw new Error('the command is empty');
  const places = program.includes('/')
    ? [resolve(workingDir, program)]
    : path.split(delimiter).map((dir) => resolve(workingDir, dir, program));
  const problems = places.map((place) => problemOf(boot, place));
  if (problems.includes(undefined)) return;
  const code = problems.includes('EACCES') ? 'EACCES' : 'ENOENT';
  throw Object.assign(new Error(`spawn ${program} ${code}`), { code });
}

/** Returns why a program cannot be started; undefined when it can, or when only the boot can tell. */
function problemOf(boot: Boot, place: string): 'EACCES' | 'ENOENT' | undefined {
  // The install command may have made the program in the /tmp of the boot.
  const inBoot = boot.mayHave(place);
  if (inBoot !== undefined) return inBoot ? undefined : 'ENOENT';
  try {
    if (!statSync(place).isFile()) return 'ENOENT';
  } catch (error) {
    // PATH may name directories that this user may not enter.
    return error instanceof Error && 'code' in error && error.code === 'EACCES' ? 'EACCES' : 'ENOENT';
  }
  return isExecutable(place) ? undefined : 'EACCES';
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

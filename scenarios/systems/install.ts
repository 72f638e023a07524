import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { removeTree } from '../../faults/files/remove-tree.js';
import { commandLine } from '../host/command-line.js';
import type { ExpectedSystem } from './expected.js';

/**
 * Directory of the unpacked packages, one folder for each system. The scripts of the target files use it, so it
 * does not depend on the state directory of the kit. `PLUGPULL_PACKAGES` replaces it.
 */
export function packagesDirectory(): string {
  return process.env.PLUGPULL_PACKAGES ?? '/var/cache/plugpull/packages';
}

/** What an installation needs of the machine. Tests replace it. */
export interface InstallHost {
  /** True if this is root on Debian or Ubuntu. */
  canInstall: boolean;
  /** Runs a program in `cwd`, and returns whether it succeeded and what it printed. */
  run(command: readonly string[], cwd?: string): { ok: boolean; text: string };
}

const THIS_HOST: InstallHost = {
  canInstall: process.getuid?.() === 0 && existsSync('/usr/bin/apt-get'),
  run: runCommand,
};

/**
 * Returns whether the program of a system exists: on the PATH, at its absolute path, or in its unpacked packages.
 */
export function isInstalled({ name, program, unpack }: ExpectedSystem): boolean {
  const folders = program.startsWith('/') ? [''] : (process.env.PATH ?? '').split(':');
  if (unpack.length > 0) folders.push(join(packagesDirectory(), name));
  return folders.some((folder) => existsSync(join(folder, program)));
}

/** Returns the command or the description by which a user gets a system that is missing. */
export function remedy({ package: debianPackage, name, unpack }: ExpectedSystem): string {
  return unpack.length > 0
    ? `as root on Debian: ${commandLine('systems', name)}`
    : `as root: apt-get install ${debianPackage}`;
}

/**
 * Gets a missing system from the packages of Debian or Ubuntu, and reports what it does. It installs the package.
 * Packages that conflict with others are only unpacked, into `packagesDirectory`. It does nothing without root or
 * apt-get, or if `PLUGPULL_NO_INSTALL` is 1. A failure is reported, and the system stays missing.
 */
export function installSystem(
  system: ExpectedSystem,
  report: (line: string) => void,
  { canInstall, run }: InstallHost = THIS_HOST,
): void {
  if (isInstalled(system) || process.env.PLUGPULL_NO_INSTALL === '1' || !canInstall) return;
  const failure = system.unpack.length > 0 ? unpack(system, report, run) : install(system, report, run);
  if (failure !== undefined) report(`${system.name}: ${failure}`);
}

function install(
  { name, package: debianPackage }: ExpectedSystem,
  report: (line: string) => void,
  run: InstallHost['run'],
): string | undefined {
  // --no-remove: a mail server conflicts with all others, and must not replace that of this machine.
  const command = [
    'apt-get',
    'install',
    '-y',
    '-qq',
    '--no-install-recommends',
    '--no-remove',
    debianPackage,
  ];
  report(`${name}: ${command.join(' ')} (PLUGPULL_NO_INSTALL=1 turns this off)`);
  return failureOf(command, run);
}

function unpack(
  { name, unpack: packages }: ExpectedSystem,
  report: (line: string) => void,
  run: InstallHost['run'],
): string | undefined {
  const parent = packagesDirectory();
  report(
    `${name}: unpacking ${packages.join(', ')} in ${join(parent, name)} (PLUGPULL_NO_INSTALL=1 turns this off)`,
  );
  mkdirSync(parent, { recursive: true });
  // Fill a folder of another name first: a half-filled one must not count as installed.
  const filling = mkdtempSync(join(parent, `.${name}-`));
  try {
    const failed = failureOf(['apt-get', 'download', '-qq', ...packages], run, filling);
    if (failed !== undefined) return failed;
    const root = join(filling, 'root');
    for (const file of readdirSync(filling)) {
      const failed = failureOf(['dpkg-deb', '-x', join(filling, file), root], run);
      if (failed !== undefined) return failed;
    }
    removeTree(join(parent, name));
    renameSync(root, join(parent, name));
    return undefined;
  } finally {
    removeTree(filling);
  }
}

/** Runs a command of apt or dpkg; runs it again after an update of the package lists if it fails. */
function failureOf(command: readonly string[], run: InstallHost['run'], cwd?: string): string | undefined {
  if (run(command, cwd).ok) return undefined;
  if (command[0] === 'apt-get') run(['apt-get', 'update', '-qq']);
  const { ok, text } = run(command, cwd);
  return ok ? undefined : `${command.join(' ')} failed: ${text.trim().split('\n').at(-1)}`;
}

function runCommand([program = '', ...args]: readonly string[], cwd?: string) {
  const done = spawnSync(program, args, {
    cwd,
    encoding: 'utf8',
    // RUNLEVEL=1 keeps the packages from starting their services.
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' },
  });
  return { ok: done.status === 0, text: `${done.stdout ?? ''}${done.stderr ?? ''}${done.error ?? ''}` };
}

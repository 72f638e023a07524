import { existsSync, realpathSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { TARGET_SCHEMA_URL } from '../../conformance/target-file/versions.js';
import { shellQuote } from './shell.js';
import { packageRoot } from './version.js';

/** Path of the kit's program in its package. */
const PROGRAM = 'dist/scenarios/cli/main.js';
const SCHEMA = 'conformance/target-file/target.schema.json';
/** A file that every checkout has and that the npm package does not contain. */
const ONLY_IN_CHECKOUT = 'tsconfig.json';

/** Commands that have an npm script of their own in a checkout. */
const CHECKOUT_SCRIPTS: ReadonlySet<string> = new Set(['gate', 'setup']);

/** What decides how a user starts the kit. */
export interface Place {
  /** Folder of the kit's package.json. */
  root: string;
  /** Current folder of the user. */
  cwd: string;
  env: Readonly<Record<string, string | undefined>>;
}

/**
 * Returns a command line of the kit as the user can type it in the current folder. Every command that the kit prints is made
 * here, because only one of these forms works in a place:
 * - `npm run plugpull -- …` in the folder of a checkout; `npm run gate -- …` and `npm run setup` for those two.
 * - `npx plugpull …` where the package is installed in the project.
 * - `plugpull …` where it is on the PATH: after a global installation, and in the container image.
 * - `node path/to/main.js …` anywhere else.
 * @param args arguments, not quoted. A path must be absolute or relative to the current folder; see `pathFromHere`.
 */
export function commandLine(...args: readonly string[]): string {
  return commandLineAt(currentPlace(), args);
}

/** Returns the part of a command line that stands for the kit, such as `npx plugpull`. */
export function kitCommand(): string {
  return kitCommandAt(currentPlace());
}

/** Reports whether the kit runs in a checkout, and not as an installed package or in an image: only there are its sources. */
export function isCheckout(): boolean {
  return existsSync(join(packageRoot(), ONLY_IN_CHECKOUT));
}

/** Returns a command line for a given place, like `commandLine`. */
export function commandLineAt(place: Place, [command, ...rest]: readonly string[]): string {
  const words = rest.map(shellQuote);
  if (command !== undefined && CHECKOUT_SCRIPTS.has(command) && isCheckoutFolder(place))
    return [`npm run ${command}`, ...(words.length === 0 ? [] : ['--', ...words])].join(' ');
  return [kitCommandAt(place), ...(command === undefined ? [] : [shellQuote(command)]), ...words].join(' ');
}

/**
 * Returns a path as the user can type it in the current folder, not quoted: relative when that is shorter, otherwise
 * absolute.
 */
export function pathFromHere(path: string, cwd = process.cwd()): string {
  const full = resolve(cwd, path);
  const short = relative(cwd, full) || '.';
  if (short.length >= full.length) return full;
  // A path that begins with a dash would be read as an option.
  return short.startsWith('-') ? `./${short}` : short;
}

/**
 * Returns how a target file in `folder` names its JSON Schema: by a relative path where the project of the file has this
 * package, so that an editor finds it without a network, and by its address otherwise.
 */
export function schemaLocation(folder: string, root = packageRoot()): string {
  const full = resolve(folder);
  const isBelowCheckout = existsSync(join(root, ONLY_IN_CHECKOUT)) && `${full}/`.startsWith(`${root}/`);
  const base = isBelowCheckout ? root : installedIn(root, full);
  return base === undefined ? TARGET_SCHEMA_URL : relative(full, join(base, SCHEMA));
}

function currentPlace(): Place {
  return { root: packageRoot(), cwd: process.cwd(), env: process.env };
}

function kitCommandAt(place: Place): string {
  const { root, cwd, env } = place;
  const program = join(root, PROGRAM);
  const direct = `node ${shellQuote(pathFromHere(program, cwd))}`;
  if (existsSync(join(root, ONLY_IN_CHECKOUT)))
    return isCheckoutFolder(place) ? 'npm run plugpull --' : direct;
  // npx puts the program on the PATH of its child only, so ask for npx before looking at the PATH.
  if (installedIn(root, cwd) !== undefined || env.npm_command === 'exec') return 'npx plugpull';
  return isOnPath(program, env.PATH ?? '') ? 'plugpull' : direct;
}

/** npm runs a script in the folder of package.json: only there a relative path means the same to npm and to the user. */
function isCheckoutFolder({ root, cwd }: Place): boolean {
  return existsSync(join(root, ONLY_IN_CHECKOUT)) && realPath(root) === realPath(cwd);
}

/**
 * Returns the folder below `node_modules` in which the project around `cwd` has this package: `npx` finds it there.
 * Undefined when the nearest one has none, or another one.
 */
function installedIn(root: string, cwd: string): string | undefined {
  for (let folder = resolve(cwd); ; folder = dirname(folder)) {
    const installed = join(folder, 'node_modules/plugpull');
    if (existsSync(installed)) return realPath(installed) === realPath(root) ? installed : undefined;
    if (dirname(folder) === folder) return undefined;
  }
}

function isOnPath(program: string, path: string): boolean {
  const found = path
    .split(':')
    .filter((folder) => folder.startsWith('/'))
    .map((folder) => join(folder, 'plugpull'))
    .find((file) => existsSync(file));
  return found !== undefined && realPath(found) === realPath(program);
}

function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}

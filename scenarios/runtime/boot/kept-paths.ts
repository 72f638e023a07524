import { spawnSync } from 'node:child_process';
import { lstatSync, readdirSync, readlinkSync, realpathSync, type Stats, statSync } from 'node:fs';
import { dirname, extname, join, resolve } from 'node:path';

/** Directories that a reboot empties, with the mode of a fresh one. */
export const VOLATILE_DIRS = { '/tmp': 0o1777, '/run': 0o755, '/dev/shm': 0o1777 } as const;
export type VolatileDir = keyof typeof VOLATILE_DIRS;

/** Matches an absolute path below a volatile directory, also inside a longer word. */
const VOLATILE_PATH = /(?:\/tmp|\/run|\/var\/run|\/dev\/shm)\/[^\s'"`=:;,(){}<>|&$*?]+/g;
/**
 * Extensions of files that a program reads and does not write. Other files that a command names, such as a pid
 * file or a database, may be left from an earlier run, and a reboot destroys them.
 */
const INPUT_EXTENSIONS = new Set(
  (
    '.js .mjs .cjs .py .sh .rb .pl .php .lua .jar .so ' +
    '.conf .cfg .json .yml .yaml .toml .ini .xml .properties .pem .key .crt'
  ).split(' '),
);
/** Upper bound of the files beside a target file in a volatile directory. Each is one mount of every start. */
const MAX_SIBLINGS = 100;
/** Upper bound of the sockets in a directory that a command names. */
const MAX_SOCKETS = 20;
/** Number of symbolic links after which the kernel gives up, too. */
const MAX_LINKS = 40;
const CONNECT_TIMEOUT_MS = 5000;

/** Paths that a target needs in every boot. */
export interface NeededPaths {
  /** Directories and files that are kept alone. */
  keep: readonly string[];
  /** Paths that are kept with their whole tree, from the entry of the volatile directory. */
  trees: readonly string[];
  /** Words that may name further files: commands and values of variables. */
  words: readonly string[];
}

/**
 * Returns the files, directories, sockets and symbolic links below the volatile directories that a target sees
 * under the same path after every boot. No path is inside another one.
 */
export function keptPathsOf({ keep, trees, words }: NeededPaths): string[] {
  const named = words.flatMap((word) => word.match(VOLATILE_PATH) ?? []);
  const kept = [
    ...keep.flatMap(pathAndLinks),
    ...[...trees, ...trees.flatMap(linksIn), ...trees.flatMap(siblingsIn), ...named.filter(isInput)].flatMap(
      treesOf,
    ),
    ...listening(named.flatMap(socketsAt)).flatMap(pathAndLinks),
  ];
  return outermost(kept.filter((path) => volatileDirOf(path) !== undefined));
}

/** Returns the volatile directory below which a path is; undefined for that directory itself. */
export function volatileDirOf(path: string): VolatileDir | undefined {
  return (Object.keys(VOLATILE_DIRS) as VolatileDir[]).find((dir) => path.startsWith(`${dir}/`));
}

/** Returns the entry of a volatile directory in which a path is; the path itself when it is elsewhere. */
export function treeOf(path: string): string {
  const dir = volatileDirOf(path);
  if (dir === undefined) return path;
  const end = path.indexOf('/', dir.length + 1);
  return end === -1 ? path : path.slice(0, end);
}

/**
 * Follows the symbolic links of a path, one at a time.
 * @returns the path, and what it becomes by each link. The last one has no links, or does not exist.
 */
export function followLinks(path: string): string[] {
  const ways = [path];
  for (let way: string | undefined = path; way !== undefined && ways.length <= MAX_LINKS; ) {
    const link = firstLinkOf(way);
    way = link && resolve(dirname(link), readlinkSync(link), `.${way.slice(link.length)}`);
    if (way !== undefined) ways.push(way);
  }
  return ways;
}

/** Returns the first part of a path that is a symbolic link. */
function firstLinkOf(path: string): string | undefined {
  for (let end = path.indexOf('/', 1); ; end = path.indexOf('/', end + 1)) {
    const part = end === -1 ? path : path.slice(0, end);
    const stats = lookAt(part, lstatSync);
    if (stats === undefined) return undefined;
    if (stats.isSymbolicLink()) return part;
    if (end === -1) return undefined;
  }
}

/** Returns a path that exists, without symbolic links, and the links that lead to it. */
function pathAndLinks(path: string): string[] {
  const real = realPathOf(path);
  if (real === undefined) return [];
  return [real, ...followLinks(resolve(path)).flatMap((way) => firstLinkOf(way) ?? [])];
}

/**
 * Returns the trees of a path that exists, and of what its links lead to. A program that is a link, such as
 * the Python of a virtual environment, loads files from both.
 */
function treesOf(path: string): string[] {
  return realPathOf(path) === undefined ? [] : followLinks(resolve(path)).map(treeOf);
}

/**
 * Returns the files beside a target file that is directly in a volatile directory. The directory itself cannot
 * be kept: it would survive each reboot.
 */
function siblingsIn(dir: string): string[] {
  const real = realPathOf(dir);
  if (real === undefined || !Object.hasOwn(VOLATILE_DIRS, real)) return [];
  return entriesOf(real).filter(isInput).slice(0, MAX_SIBLINGS);
}

/** Returns the symbolic links in a directory, such as a `node_modules` that is elsewhere. */
function linksIn(dir: string): string[] {
  return entriesOf(dir).filter((entry) => lookAt(entry, lstatSync)?.isSymbolicLink());
}

/** Reports whether a path is a program, or a file that a program reads and does not write. */
function isInput(path: string): boolean {
  const stats = lookAt(path, statSync);
  return stats?.isFile() === true && ((stats.mode & 0o111) !== 0 || INPUT_EXTENSIONS.has(extname(path)));
}

/** Returns the path of a socket; for a directory, as PGHOST names one, the sockets in it. */
function socketsAt(path: string): string[] {
  const stats = lookAt(path, statSync);
  if (stats?.isSocket()) return [path];
  if (!stats?.isDirectory()) return [];
  return entriesOf(path)
    .filter((entry) => lookAt(entry, statSync)?.isSocket())
    .slice(0, MAX_SOCKETS);
}

/** Program that prints those of its arguments that are sockets at which a process listens. */
const CONNECT_TO_ALL = `
for (const path of process.argv.slice(1)) {
  const socket = require('node:net').connect(path);
  socket.on('connect', () => { console.log(path); socket.destroy(); });
  socket.on('error', ({ code }) => { if (code !== 'ECONNREFUSED' && code !== 'ENOENT') console.log(path); });
}`;

/**
 * Leaves out the sockets of processes that have ended. If such a socket of the target itself were kept, the
 * target could not replace it: it is a mount point.
 */
function listening(sockets: readonly string[]): string[] {
  if (sockets.length === 0) return [];
  const options = { encoding: 'utf8', timeout: CONNECT_TIMEOUT_MS } as const;
  const { stdout } = spawnSync(process.execPath, ['-e', CONNECT_TO_ALL, '--', ...sockets], options);
  return stdout.split('\n').filter((line) => line !== '');
}

/** Leaves out every path that is inside another one. */
function outermost(paths: readonly string[]): string[] {
  const unique = [...new Set(paths)];
  return unique.filter((path) => !unique.some((other) => path.startsWith(`${other}/`)));
}

function entriesOf(dir: string): string[] {
  try {
    return readdirSync(dir).map((name) => join(dir, name));
  } catch {
    return [];
  }
}

/** Returns the path of a file or directory without symbolic links; undefined when it does not exist. */
export function realPathOf(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    return undefined;
  }
}

/** Returns the state of a path; undefined when it does not exist or the kit may not look at it. */
export function lookAt(path: string, look: (path: string) => Stats): Stats | undefined {
  try {
    return look(path);
  } catch {
    return undefined;
  }
}

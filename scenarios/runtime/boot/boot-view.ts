import { spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { messageOf } from '../../../conformance/errors.js';
import type { Availability } from '../../../faults/fault.js';
import type { Registry } from '../../host/registry.js';
import { copyDirectoriesOf } from './run-directories.js';

/** File in which the kernel publishes the id of the current boot. */
export const BOOT_ID_FILE = '/proc/sys/kernel/random/boot_id';

/** Directories that a reboot empties, with the mode of a fresh one. */
const VOLATILE_DIRS = { '/tmp': 0o1777, '/run': 0o755, '/dev/shm': 0o1777 } as const;
type VolatileDir = keyof typeof VOLATILE_DIRS;
/** Variables that name a directory for temporary files. A target may expect that it exists. */
const TEMPORARY_VARIABLES = ['TMPDIR', 'TMP', 'TEMP', 'XDG_RUNTIME_DIR'];
/** Matches an absolute path below a volatile directory, also inside a longer word. */
const VOLATILE_PATH = /(?:\/tmp|\/run|\/var\/run|\/dev\/shm)\/[^\s'"`=:;,(){}<>|&$*?]+/g;

/**
 * Script that runs a command in a mount namespace of its own. The namespace ends with the last process of the
 * command, so that nothing of it can keep a disk in use after the power was cut.
 *
 * First it lets go of disks of the kit that belong to other targets: a copy of such a mount would keep that
 * disk in use. Its first argument is a list of paths, each between line feeds, whose mounts stay; then come
 * the table of the bind mounts, in the format of fstab, and the command. One call makes all the mounts: each
 * further process would take two milliseconds of every start.
 */
const ENTER_BOOT = `
kept=$1; table=$2; shift 2
grep -E '^(/dev/loop|/dev/mapper/plugpull-)' /proc/self/mounts | while read -r device point type rest; do
  case $type in ext4|xfs) ;; *) continue ;; esac
  case $kept in *"
$point/"*) continue ;; esac
  umount --lazy "$(printf %b "$point")" || :
done
mount -a -T "$table" || exit 125
exec "$@"`;

const ENTER_COMMAND = [
  'unshare',
  '--mount',
  '--propagation',
  'slave',
  'sh',
  '-c',
  ENTER_BOOT,
  'plugpull-boot',
];

/** Paths from which a target's view of the machine is made. */
export interface BootViewOptions {
  /** Directory of the target's run, in which the directory for its /tmp is made. */
  dir: string;
  /** Directories and files that the target sees under the same path after every boot, if they exist. */
  keep: readonly string[];
  /** Paths whose whole tree, from the entry of /tmp, /run or /dev/shm, the target sees likewise. */
  trees: readonly string[];
  /** Words that may name further files of the target: commands and values of variables. */
  words: readonly string[];
  registry: Pick<Registry, 'runId' | 'made' | 'gone'>;
  /** Whether namespaces can be made. Default: what this machine can do. */
  availability?: Availability;
}

/**
 * The machine as the processes of one target see it, from one simulated boot to the next: the boot id, /tmp,
 * /run and /dev/shm. All processes of a boot share them. `reboot` replaces them: the boot id is another one
 * and the directories are empty, as after a crash of a real machine.
 *
 * Each command gets a mount namespace of its own. Where namespaces cannot be made, the commands see the boot
 * id and the directories of the machine, and `reboot` returns the reason.
 */
export class BootView {
  readonly #options: BootViewOptions;
  readonly #kept: readonly string[];
  readonly #available: Availability;
  /** Directories that hold the files of the boot, and those that could not be removed. */
  #roots: string[] = [];
  #arguments: readonly string[] | undefined;

  constructor(options: BootViewOptions) {
    this.#options = options;
    this.#available = options.availability ?? bootViewAvailability();
    const named = options.words.flatMap(treesOfFilesIn);
    const trees = options.trees.flatMap(realPathsOf).map(treeOf);
    const path = (process.env.PATH ?? '').split(':');
    const program = dirname(process.execPath);
    // The home directory is no temporary one, wherever it is.
    const home = process.env.HOME ?? '';
    const existing = [...options.keep, ...trees, ...named, ...path, program, home].flatMap(realPathsOf);
    this.#kept = outermost(existing.filter((one) => volatileDirOf(one) !== undefined));
  }

  /** Returns the command that runs `command` in the current boot. */
  enter(command: readonly string[]): string[] {
    if (!this.#available.available) return [...command];
    this.#arguments ??= this.#boot();
    return [...ENTER_COMMAND, ...this.#arguments, ...command];
  }

  /**
   * Ends the boot; the next command begins a new one. No process of the target may live.
   * @returns the reason when the target cannot see another boot; otherwise undefined.
   */
  reboot(): string | undefined {
    if (!this.#available.available) return this.#available.why;
    this.remove();
    return undefined;
  }

  /** Removes what the boot has made. May be called twice, and while processes of the target still die. */
  remove(): void {
    this.#arguments = undefined;
    this.#roots = this.#roots.filter((path) => {
      try {
        rmSync(path, { recursive: true, force: true });
      } catch {
        // A process that has just been killed was still making files.
        return true;
      }
      this.#options.registry.gone({ kind: 'directory', path });
      return false;
    });
  }

  /** Makes the directories of a boot, and returns the arguments of ENTER_BOOT before the command. */
  #boot(): string[] {
    const id = randomUUID();
    const { disk, memory } = this.#makeRoots(id);
    const bootId = join(disk, 'boot_id');
    writeFileSync(bootId, `${id}\n`, { mode: 0o444 });
    const sources = new Map<VolatileDir, string>();
    // A mount hides what is below it, and sources may be below /tmp or /dev/shm. Keep this order.
    const order = [
      ['/tmp', disk],
      ['/run', memory],
      ['/dev/shm', memory],
    ] as const;
    for (const [dir, root] of order) {
      // A symbolic link, as /dev/shm is on some machines, leads to a directory that another mount replaces.
      if (!isDirectory(dir)) continue;
      const source = join(root, dir.slice(1).replace('/', '-'));
      mkdirSync(source, { mode: VOLATILE_DIRS[dir] });
      // mkdir applies the umask.
      chmodSync(source, VOLATILE_DIRS[dir]);
      if (dir === '/run') copyDirectoriesOf(dir, source);
      sources.set(dir, source);
    }
    for (const variable of TEMPORARY_VARIABLES) {
      const place = placeOf(process.env[variable] ?? '', sources);
      if (place !== undefined) makeOpenDirectory(place);
    }
    const binds: [string, string][] = [[bootId, BOOT_ID_FILE]];
    for (const path of this.#kept) {
      const place = placeOf(path, sources);
      if (place === undefined) continue;
      makeMountPoint(path, place);
      binds.push([path, place]);
    }
    for (const [dir, source] of sources) binds.push([source, dir]);
    const kept = [...this.#options.keep, ...this.#kept, disk, memory].map(
      (path) => `\n${escapeMount(path)}/`,
    );
    const table = join(disk, 'mounts');
    writeFileSync(table, mountTable(binds));
    return [`${kept.join('')}\n`, table];
  }

  #makeRoots(id: string): { disk: string; memory: string } {
    const { dir, registry } = this.#options;
    const disk = join(dir, `boot-${id}`);
    // Memory, as on a real machine; a container may have a directory on a disk there, which works as well.
    const memory = join(isDirectory('/dev/shm') ? '/dev/shm' : dir, `plugpull-${registry.runId}-${id}`);
    for (const path of [disk, memory]) {
      registry.made({ kind: 'directory', path });
      this.#roots.push(path);
      mkdirSync(path, { recursive: true, mode: 0o755 });
    }
    return { disk, memory };
  }
}

/** Returns the path of a file or directory without symbolic links; nothing when it does not exist. */
function realPathsOf(path: string): string[] {
  try {
    return [realpathSync(path)];
  } catch {
    return [];
  }
}

/**
 * Returns the entries of a volatile directory to keep for the files that a word names. A program of the target
 * may load others from anywhere in the same tree. Directories are not kept: one that a word names may hold what
 * a reboot destroys.
 */
function treesOfFilesIn(word: string): string[] {
  const files = (word.match(VOLATILE_PATH) ?? []).flatMap(realPathsOf).filter(isFile);
  return files.map(treeOf);
}

/** Returns the entry of a volatile directory in which a path is; the path itself when it is elsewhere. */
function treeOf(path: string): string {
  const dir = volatileDirOf(path);
  if (dir === undefined) return path;
  const end = path.indexOf('/', dir.length + 1);
  return end === -1 ? path : path.slice(0, end);
}

/** Returns the volatile directory below which a path is; undefined for that directory itself. */
function volatileDirOf(path: string): VolatileDir | undefined {
  return (Object.keys(VOLATILE_DIRS) as VolatileDir[]).find((dir) => path.startsWith(`${dir}/`));
}

/** Leaves out every path that is inside another one. */
function outermost(paths: readonly string[]): string[] {
  const unique = [...new Set(paths)];
  return unique.filter((path) => !unique.some((other) => path.startsWith(`${other}/`)));
}

/** Translates a path below a volatile directory into the path that it has before the mounts of a boot. */
function placeOf(path: string, sources: ReadonlyMap<VolatileDir, string>): string | undefined {
  const dir = volatileDirOf(path);
  const source = dir && sources.get(dir);
  return source === undefined || dir === undefined ? undefined : join(source, path.slice(dir.length));
}

function isFile(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() === true;
}

function isDirectory(path: string): boolean {
  try {
    return lstatSync(path).isDirectory();
  } catch {
    return false;
  }
}

/** Makes a directory that every user may write to, as a directory for temporary files is. */
function makeOpenDirectory(path: string): void {
  mkdirSync(path, { recursive: true });
  chmodSync(path, VOLATILE_DIRS['/tmp']);
}

/** Makes the file or directory on which `path` is mounted. */
function makeMountPoint(path: string, place: string): void {
  const directory = statSync(path).isDirectory();
  mkdirSync(directory ? place : dirname(place), { recursive: true });
  if (!directory) writeFileSync(place, '');
}

/** Makes a table of bind mounts in the format of fstab. */
function mountTable(binds: readonly (readonly [source: string, target: string])[]): string {
  const line = ([source, target]: readonly [string, string]) =>
    `${escapeMount(source)} ${escapeMount(target)} none rbind 0 0\n`;
  return binds.map(line).join('');
}

/** Writes a path as /proc/self/mounts and fstab do. */
function escapeMount(path: string): string {
  return path.replaceAll(/[ \t\n\\]/g, (char) => `\\${char.charCodeAt(0).toString(8).padStart(3, '0')}`);
}

const PROBE_TIMEOUT_MS = 10_000;
let availability: Availability | undefined;

/** Reports whether the processes of a target can get a boot id and volatile directories of their own. */
export function bootViewAvailability(): Availability {
  availability ??= probe();
  return availability;
}

function probe(): Availability {
  const unavailable = (why: string, remedy: string): Availability => ({ available: false, why, remedy });
  if (process.getuid?.() !== 0)
    return unavailable(
      'a boot id of its own for the target needs a mount namespace, which needs root',
      'run as root (sudo)',
    );
  const dir = mkdtempSync(join(tmpdir(), 'plugpull-boot-'));
  try {
    const file = join(dir, 'boot_id');
    const table = join(dir, 'mounts');
    const id = randomUUID();
    writeFileSync(file, id);
    writeFileSync(table, mountTable([[file, BOOT_ID_FILE]]));
    const [program = '', ...args] = [...ENTER_COMMAND, '', table, 'cat', BOOT_ID_FILE];
    const { stdout, stderr, error } = spawnSync(program, args, {
      encoding: 'utf8',
      timeout: PROBE_TIMEOUT_MS,
    });
    if (stdout === id) return { available: true };
    const reason = messageOf(error ?? stderr);
    return unavailable(
      `a boot id of its own for the target needs a mount namespace, which failed: ${reason}`,
      'install util-linux; in a container: --privileged',
    );
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

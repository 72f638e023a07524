import { spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { messageOf } from '../../../conformance/errors.js';
import type { Availability } from '../../../faults/fault.js';
import { removeTree } from '../../../faults/files/remove-tree.js';
import { makeMadeHereList } from '../../host/made-here.js';
import { makeRegistryPlace, type Registry, registryPlaces } from '../../host/registry.js';
import {
  followLinks,
  keptPathsOf,
  lookAt,
  realPathOf,
  treeOf,
  VOLATILE_DIRS,
  type VolatileDir,
  volatileDirOf,
} from './kept-paths.js';
import { copyDirectoriesOf, copyDirectory } from './run-directories.js';

/** File in which the kernel publishes the id of the current boot. */
export const BOOT_ID_FILE = '/proc/sys/kernel/random/boot_id';
/** Table of host names that programs read before they ask a name server. */
const HOSTS_FILE = '/etc/hosts';

/** Variables that name a directory for temporary files. A target may expect that it exists. */
const TEMPORARY_VARIABLES = ['TMPDIR', 'TMP', 'TEMP', 'XDG_RUNTIME_DIR'];

/**
 * Script that runs a command in a mount namespace of its own. The namespace ends with the last process of the
 * command, so that nothing of it can keep a disk in use after the power was cut.
 *
 * First it lets go of disks of the kit that belong to other targets: a copy of such a mount would keep that
 * disk in use. The file behind such a disk is in a directory of a run, which has the id of the run in its name;
 * all other disks, also those on loop devices, are the user's. Its first argument is a list of paths, each
 * between line feeds, whose mounts stay; then come the table of the bind mounts, in the format of fstab, and
 * the command. One call makes all the mounts: each further process would take two milliseconds of every start.
 */
const ENTER_BOOT = `
kept=$1; table=$2; shift 2
day='[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]'
time='[0-9][0-9][0-9][0-9][0-9][0-9]'
random='[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]'
grep -E '^(/dev/loop|/dev/mapper/plugpull-)' /proc/self/mounts | while read -r device point type rest; do
  case $type in ext4|xfs) ;; *) continue ;; esac
  case $device in
    /dev/loop*)
      read -r file < "/sys/block/\${device#/dev/}/loop/backing_file" || continue
      case $file in *[/-]$day-$time-$random[/-]*) ;; *) continue ;; esac ;;
  esac 2>/dev/null
  case $point in /) continue ;; esac
  case $kept in *"
$point/"*) continue ;; esac
  umount --lazy "$(printf %b "$point")" 2>/dev/null || :
done
mount -a -T "$table" || exit 125
exec "$@"`;

/**
 * Returns the command that makes the namespace; the arguments of ENTER_BOOT follow. Without root, it makes a
 * user namespace too, in which the kit's user may mount.
 */
function enterCommand(): string[] {
  const user = process.getuid?.() === 0 ? [] : ['--user', '--map-root-user'];
  const script = ['sh', '-c', ENTER_BOOT, 'plugpull-boot'];
  return ['unshare', ...user, '--mount', '--propagation', 'slave', ...script];
}

/**
 * Returns what precedes a command in the namespace. Without root, the command would see itself as root, which
 * many servers refuse: a second user namespace gives it back the kit's user.
 */
function asOwnUser(): string[] {
  const [uid, gid] = [process.getuid?.(), process.getgid?.()];
  return uid === 0 ? [] : ['unshare', '--user', `--map-user=${uid}`, `--map-group=${gid}`, '--'];
}

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
  /** Addresses by name that a boot has in /etc/hosts, beside those of the machine. */
  hosts?: ReadonlyMap<string, string> | undefined;
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
  /** Paths whose disks stay mounted. */
  readonly #needed: readonly string[];
  readonly #available: Availability;
  /** Directories that hold the files of the boot, and those that could not be removed. */
  #roots: string[] = [];
  /** Directories that hold the content of the volatile directories of the boot. */
  #sources: ReadonlyMap<VolatileDir, string> = new Map();
  #arguments: readonly string[] | undefined;

  constructor(options: BootViewOptions) {
    this.#options = options;
    this.#available = options.availability ?? bootViewAvailability();
    const path = (process.env.PATH ?? '').split(':');
    // The home directory is no temporary one, wherever it is.
    const own = [...path, dirname(process.execPath), process.env.HOME ?? ''].filter((one) => one !== '');
    this.#needed = [...options.keep, ...options.trees, ...own].flatMap((one) => realPathOf(one) ?? []);
    this.#kept = this.#available.available
      ? keptPathsOf({ ...options, keep: [...options.keep, ...own] })
      : [];
  }

  /** Returns the command that runs `command` in the current boot. */
  enter(command: readonly string[]): string[] {
    if (!this.#available.available) return [...command];
    this.#arguments ??= this.#boot();
    return [...enterCommand(), ...this.#arguments, ...asOwnUser(), ...command];
  }

  /**
   * Reports whether a path may exist in the current boot; undefined when it is the same file as on the machine.
   * True is not certain: only a process of the boot could follow the links there.
   */
  mayHave(path: string): boolean | undefined {
    if (!this.#available.available) return undefined;
    const isKept = (way: string) => this.#kept.some((kept) => way === kept || way.startsWith(`${kept}/`));
    const own = followLinks(path).find((way) => volatileDirOf(way) !== undefined && !isKept(way));
    if (own === undefined) return undefined;
    this.#arguments ??= this.#boot();
    const place = placeOf(treeOf(own), this.#sources);
    return place === undefined ? undefined : lookAt(place, lstatSync) !== undefined;
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
        removeTree(path);
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
    writeBootId(bootId, id);
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
    const binds: [string, string][] = [[bootId, BOOT_ID_FILE], ...this.#hostsIn(disk)];
    for (const path of this.#kept) {
      const place = placeOf(path, sources);
      if (place === undefined) continue;
      if (makePlace(path, place) === 'mount-point') binds.push([path, place]);
    }
    for (const [dir, source] of sources) binds.push([source, dir]);
    this.#sources = sources;
    const kept = [...this.#needed, ...this.#kept, disk, memory].map((path) => `\n${escapeMount(path)}/`);
    const table = join(disk, 'mounts');
    const places = placesOfTheKit((path) => isVisible(path, sources, this.#kept));
    writeFileSync(table, `${mountTable(binds)}${hidden(places)}`);
    return [`${kept.join('')}\n`, table];
  }

  /** Writes the table of host names of a boot. Returns its bind mount; none when it is the same as on the machine. */
  #hostsIn(disk: string): [string, string][] {
    const { hosts } = this.#options;
    if (hosts === undefined || lookAt(HOSTS_FILE, statSync)?.isFile() !== true) return [];
    const file = join(disk, 'hosts');
    const own = [...hosts].map(([name, address]) => `${address} ${name}\n`).join('');
    // The first line with a name counts.
    writeFileSync(file, `${own}${readFileSync(HOSTS_FILE, 'utf8')}`);
    chmodSync(file, 0o444);
    return [[file, HOSTS_FILE]];
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

/**
 * Returns the directories in which a target must not write and which it could see: those of the lists of resources, and
 * that of the list of the bundles that this user made here. It makes those that are missing: a target could make them
 * otherwise.
 */
function placesOfTheKit(visible: (path: string) => boolean): string[] {
  try {
    makeMadeHereList();
  } catch {
    // Then no bundle is noted as made here either.
  }
  const places = registryPlaces();
  for (const path of places) if (visible(path)) makeRegistryPlace(path);
  return [...new Set(places.map((path) => realPathOf(path) ?? path))].filter(visible);
}

/** Writes a file with a boot id that every user can read. */
export function writeBootId(path: string, id: string): void {
  writeFileSync(path, `${id}\n`);
  // The mode of a new file is subject to the umask.
  chmodSync(path, 0o444);
}

/** Translates a path below a volatile directory into the path that it has before the mounts of a boot. */
function placeOf(path: string, sources: ReadonlyMap<VolatileDir, string>): string | undefined {
  const dir = volatileDirOf(path);
  const source = dir && sources.get(dir);
  return source === undefined || dir === undefined ? undefined : join(source, path.slice(dir.length));
}

function isDirectory(path: string): boolean {
  return lookAt(path, lstatSync)?.isDirectory() === true;
}

/** Makes a directory that every user may write to, as a directory for temporary files is. */
function makeOpenDirectory(path: string): void {
  mkdirSync(path, { recursive: true });
  chmodSync(path, VOLATILE_DIRS['/tmp']);
}

/**
 * Makes the file or directory on which `path` is mounted, or a copy of a symbolic link. A path that has
 * disappeared meanwhile is left out.
 */
function makePlace(path: string, place: string): 'mount-point' | 'complete' {
  const stats = lookAt(path, lstatSync);
  if (stats === undefined) return 'complete';
  makeParents(path, place);
  // A link of /run is there already.
  if (!stats.isSymbolicLink()) {
    if (stats.isDirectory()) mkdirSync(place, { recursive: true });
    else writeFileSync(place, '');
    return 'mount-point';
  }
  if (lookAt(place, lstatSync) === undefined) symlinkSync(readlinkSync(path), place);
  return 'complete';
}

/** Makes the directories above a place as they are on the machine, so that the same users may enter them. */
function makeParents(path: string, place: string): void {
  const [from, to] = [dirname(path), dirname(place)];
  if (isDirectory(to)) return;
  makeParents(from, to);
  copyDirectory(from, to);
}

/** Makes a table of bind mounts in the format of fstab. */
function mountTable(binds: readonly (readonly [source: string, target: string])[]): string {
  const line = ([source, target]: readonly [string, string]) =>
    `${escapeMount(source)} ${escapeMount(target)} none rbind 0 0\n`;
  return binds.map(line).join('');
}

/** Reports whether a target sees a path of the machine. Below /tmp and /run it sees only what is kept. */
function isVisible(
  path: string,
  sources: ReadonlyMap<VolatileDir, string>,
  kept: readonly string[],
): boolean {
  return (
    placeOf(path, sources) === undefined || kept.some((one) => path === one || path.startsWith(`${one}/`))
  );
}

/** Makes lines of fstab that put an empty directory over each of the kit's own. */
function hidden(paths: readonly string[]): string {
  return paths
    .filter(isDirectory)
    .map((path) => `plugpull ${escapeMount(path)} tmpfs ro,nosuid,nodev,noexec,size=4k,mode=0700 0 0\n`)
    .join('');
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
  const dir = mkdtempSync(join(tmpdir(), 'plugpull-boot-'));
  try {
    const file = join(dir, 'boot_id');
    const table = join(dir, 'mounts');
    const id = randomUUID();
    writeFileSync(file, id);
    const dirs = Object.keys(VOLATILE_DIRS).filter((one) => isDirectory(one) && !dir.startsWith(`${one}/`));
    // Some machines let a user make namespaces and refuse the mounts, so try them. A mount over the directory
    // itself would hide it from the next one.
    const binds = [BOOT_ID_FILE, ...dirs].map((path) => [path === BOOT_ID_FILE ? file : dir, path] as const);
    writeFileSync(table, mountTable(binds));
    const look = ['cat', BOOT_ID_FILE];
    const [program = '', ...args] = [...enterCommand(), '', table, ...asOwnUser(), ...look];
    const { stdout, stderr, error } = spawnSync(program, args, {
      encoding: 'utf8',
      timeout: PROBE_TIMEOUT_MS,
    });
    if (stdout === id) return { available: true };
    const reason = messageOf(error ?? stderr);
    return unavailable(
      `a boot id of its own for the target needs a mount namespace, which failed: ${reason}`,
      process.getuid?.() === 0
        ? 'install util-linux; in a container: --privileged'
        : 'run as root (sudo), or let users make namespaces (sysctl kernel.apparmor_restrict_unprivileged_userns=0)',
    );
  } finally {
    removeTree(dir);
  }
}

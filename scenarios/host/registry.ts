import { randomBytes } from 'node:crypto';
import {
  accessSync,
  appendFileSync,
  closeSync,
  constants,
  existsSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { z } from 'zod';
import { KitError, messageOf } from '../../conformance/errors.js';
import { isExhausted } from '../../faults/exhausted.js';
import type { StoppedDisk } from '../../faults/power/mounts.js';
import { MachineRuns, seesAllProcesses } from './dead-runs.js';
import { makeDirectories, makeWritableDirectory } from './directories.js';
import { markOutDirectory, unmarkOutDirectory } from './out-directory.js';
import { readOwnFile, whyNotOwnDirectory } from './own-files.js';
import { bootId, mountNamespaceOf, pidNamespaceOf, processEntry } from './processes.js';
import { STATE_VARIABLE, stateDirectory } from './state-directory.js';
import { userStateDirectories } from './user-state.js';
import { diskResumed, diskStopping, forgetRun, type WatchdogProcess, watchRun } from './watchdog.js';

export { stateDirectory };

/** A thing outside the kit's own memory that must be removed again. */
export type Resource =
  | { kind: 'process'; pid: number; startTicks: number }
  | { kind: 'directory'; path: string }
  /** All containers, networks and volumes on a container engine that carry the run's id. */
  | { kind: 'containers'; engine: string }
  | { kind: 'mount'; path: string }
  /** A loop device, identified by its backing file: the kernel chooses the device number. */
  | { kind: 'loop'; path: string }
  /** A device of the device mapper. Its path is `/dev/mapper/NAME`. */
  | { kind: 'mapping'; path: string }
  /** The network of a cluster, by the directory with its namespaces. */
  | { kind: 'network'; path: string };

type Line =
  | {
      line: 'kit';
      runId: string;
      pid: number;
      startTicks: number;
      boot: string;
      namespace?: string | undefined;
      /** Pid namespace of the kit, as /proc names it: `pid` says nothing in another one. */
      pidNamespace?: string | undefined;
      /** State directory of the run. */
      state: string;
      /** Directory for the evidence, when the user has named one with `--out`. */
      out?: string | undefined;
    }
  | { line: 'watchdog'; pid: number; startTicks: number }
  | { line: 'made'; resource: Resource }
  | { line: 'gone'; resource: Resource };

/** A registered run. The kit process of the run is still alive, or it was killed. */
export interface RegisteredRun {
  runId: string;
  /** State directory of the run. '' when it is not known. */
  stateDir: string;
  /** Directory that the user has named for the evidence; undefined when it is in the state directory. */
  outDir: string | undefined;
  /** List of the run's resources; undefined when it is gone. */
  file: string | undefined;
  alive: boolean;
  /** False after a reboot: the run's processes and mounts have ended with the kernel. */
  sameBoot: boolean;
  /** Start time of the run's kit, in clock ticks since boot. */
  sinceTicks: number;
  /** Mount namespace of the run's kit, as /proc names it; undefined when it is not known. */
  namespace?: string | undefined;
  /** True while the watchdog of the run's dead kit removes what the run has made. */
  isWatched: boolean;
  /** Resources that are not removed yet, newest first: this is the order of removal. */
  resources: Resource[];
}

/** A file with a list of resources that is not believed, and the reason. */
export interface RefusedFile {
  file: string;
  why: string;
}

/** Returns the variables of this process that programs of a target get. */
export function targetEnvironment(): Record<string, string | undefined> {
  return { ...process.env, [STATE_VARIABLE]: undefined };
}

/**
 * Returns the directories that may have the lists of resources of this user's runs, best first. None is in a
 * checkout: a file there is a stranger's input, and `clean` removes what a list names. A target does not see
 * these directories; see `BootView`. The first ones also survive a boot of the machine, as containers and
 * directories do.
 */
export function registryPlaces(): string[] {
  const uid = process.geteuid?.() ?? 0;
  return [
    ...userStateDirectories(),
    // For users without a home directory that can be written to, as in many containers.
    join('/run/user', `${uid}`, 'plugpull'),
    join(tmpdir(), `plugpull-user-${uid}`),
  ];
}

/**
 * Returns the places at which lists are read: up to the first one where the kit itself would put a list. A target could
 * have made a place behind it, which the kit does not use.
 */
function readPlaces(): string[] {
  const places = registryPlaces();
  const first = places.findIndex(isUsable);
  return first === -1 ? places : places.slice(0, first + 1);
}

/** Reports whether the kit would put the list of a run at a place, or did so earlier. */
function isUsable(place: string): boolean {
  const why = [place, join(place, 'runs')].map(whyNotOwnDirectoryOf).find((one) => one !== undefined);
  return why === undefined || (why === 'missing' && canMake(join(place, 'runs')));
}

/** Reports whether this user may make a directory that is missing. */
function canMake(path: string): boolean {
  const parent = dirname(path);
  try {
    if (lstatSync(parent, { throwIfNoEntry: false }) === undefined) return parent !== path && canMake(parent);
    accessSync(parent, constants.W_OK | constants.X_OK);
    return statSync(parent).isDirectory();
  } catch {
    return false;
  }
}

/**
 * Makes a place for lists, so that a target cannot make it. Errors are ignored: where this user may make no directory,
 * its targets may not either.
 */
export function makeRegistryPlace(place: string): void {
  try {
    makeDirectories(dirname(place));
    makeOwnDirectory(place);
  } catch {
    // See above.
  }
}

/** Returns the path of the list of resources of a run; undefined when there is none. */
export function registryFile(runId: string): string | undefined {
  return readPlaces()
    .map((place) => listIn(place, runId))
    .find((file) => existsSync(file));
}

const listIn = (place: string, runId: string) => join(place, 'runs', `${runId}.jsonl`);

/** Makes a directory that only this user may enter. Another run may make it at the same moment. */
function makeOwnDirectory(path: string): void {
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error;
  }
}

/**
 * Makes the directory for the list of resources of a run, and returns the path of the list.
 * @throws KitError bad-usage when no directory of this user alone can be made.
 */
function makeList(runId: string): string {
  const problems: string[] = [];
  for (const place of registryPlaces()) {
    const dir = join(place, 'runs');
    try {
      makeDirectories(dirname(place));
      for (const path of [place, dir]) makeOwnDirectory(path);
      const why = [place, dir].flatMap((path) => {
        const reason = whyNotOwnDirectory(path);
        return reason === undefined ? [] : [`${path}: ${reason}`];
      });
      if (why.length === 0) return listIn(place, runId);
      problems.push(...why);
    } catch (error) {
      problems.push(messageOf(error));
    }
  }
  throw new KitError(
    'bad-usage',
    `no directory for the list of resources of a run: ${problems.join('; ')}; expected a directory of this user alone (XDG_STATE_HOME names another place)`,
  );
}

/** Reports whether a resource is a process that has not ended. */
function isLiveProcess(resource: Resource): boolean {
  if (resource.kind !== 'process') return false;
  const entry = processEntry(resource.pid);
  return entry !== undefined && entry.startTicks === resource.startTicks && entry.state !== 'Z';
}

/** Makes the id of a run: the time, and a random part that makes it unique. */
export function newRunId(): string {
  const day = new Date().toISOString().slice(0, 19).replaceAll(/[-:]/g, '').replace('T', '-');
  return `${day}-${randomBytes(4).toString('hex')}`;
}

const ownRunIds = new Set<string>();

/** Ids of the runs that this process has registered, also of those that have ended. */
export function runIdsOfThisProcess(): ReadonlySet<string> {
  return ownRunIds;
}

/**
 * The list of resources that a run has made and not yet removed, one file per run. A resource is registered
 * before it is made, because the kit may be killed between any two of its statements.
 */
export class Registry {
  readonly runId: string;
  readonly #file: string;
  readonly #stateDir: string;
  readonly #outDir: string | undefined;
  /** Descriptor of the registry's file. Other runs see by it that this run is alive. */
  #heldFd: number | undefined;
  #isWatched = false;

  /**
   * @param outDir directory that the user has named for the evidence, if any. Only what is below it, below the
   *   state directory, or in a directory with the id of the run in its name can be removed by `clean`.
   */
  constructor(runId: string, stateDir = stateDirectory(), outDir?: string) {
    this.runId = runId;
    ownRunIds.add(runId);
    this.#stateDir = stateDir;
    this.#outDir = outDir === undefined ? undefined : resolve(outDir);
    makeWritableDirectory(stateDir, `${stateDir} (PLUGPULL_STATE)`);
    this.#file = makeList(runId);
    const startTicks = processEntry(process.pid)?.startTicks ?? 0;
    const out = this.#outDir === undefined ? {} : { out: this.#outDir };
    // Another run that cleans up must never see the list without the line of its kit: it would take the kit for dead.
    const unfinished = join(dirname(this.#file), `.${runId}.new`);
    try {
      const namespace = mountNamespaceOf(process.pid);
      const pidNamespace = pidNamespaceOf('self');
      const state = resolve(stateDir);
      const kit = { runId, pid: process.pid, startTicks, boot: bootId(), namespace, pidNamespace };
      this.#write({ line: 'kit', ...kit, state, ...out }, unfinished, constants.O_CREAT | constants.O_EXCL);
      if (this.#outDir !== undefined) markOutDirectory(this.#outDir, runId);
      renameSync(unfinished, this.#file);
      this.#heldFd = openSync(this.#file, 'r');
    } catch (error) {
      for (const file of [unfinished, this.#file]) rmSync(file, { force: true });
      throw error;
    }
  }

  /**
   * Registers a resource; must be called before the resource is made.
   * @throws KitError kit-failed when the file cannot be written.
   */
  made(resource: Resource): void {
    this.#write({ line: 'made', resource });
    if (resource.kind !== 'directory' && !this.#isWatched) this.#watch();
  }

  /** Lets the watchdog remove what the run has made, if this process dies. */
  #watch(): void {
    this.#isWatched = true;
    const note = ({ pid }: WatchdogProcess) =>
      this.#write({ line: 'watchdog', pid, startTicks: processEntry(pid)?.startTicks ?? 0 });
    const watchdog = watchRun(this.runId, this.#stateDir, (replaced) => {
      try {
        note(replaced);
      } catch {
        // The watchdog works nevertheless; `clean` only does not wait for it.
      }
    });
    if (watchdog !== undefined) note(watchdog);
  }

  /** Lets the watchdog resume a disk that stays stopped. Must be called before the disk is stopped. */
  stopping(disk: StoppedDisk): void {
    diskStopping(disk);
  }

  /** Must be called after the disk was resumed. */
  resumed(disk: StoppedDisk): void {
    diskResumed(disk);
  }

  /**
   * Marks a resource as removed. If the write fails, the resource counts as left, and `clean` finds that it
   * is gone.
   */
  gone(resource: Resource): void {
    try {
      this.#write({ line: 'gone', resource });
    } catch {
      // Ignore the error, so that the removal of the other resources goes on. This matters most on a full
      // disk.
    }
  }

  /** Ends the run and leaves what it has made for `clean`: the watchdog does not remove it when this process ends. */
  leave(): void {
    forgetRun(this.runId);
    if (this.#heldFd !== undefined) closeSync(this.#heldFd);
    this.#heldFd = undefined;
  }

  /**
   * Ends the run. If a process of the run may still be running, the watchdog kills it after the end of this process.
   */
  close(): void {
    try {
      if (readRun(this.#file, this.runId).resources.some(isLiveProcess)) return;
    } catch (error) {
      // Too many files are open, so a process may still be running. After another error the list is gone, and there is nothing
      // to check.
      if (isExhausted(error)) return;
    }
    this.release();
  }

  /**
   * Ends the run without ending its processes; the caller is responsible for them. Deletes the file of the run, unless a resource
   * is left that only `clean` can remove.
   */
  release(): void {
    this.leave();
    let resources: readonly Resource[];
    try {
      resources = readRun(this.#file, this.runId).resources;
    } catch {
      // Somebody has removed or changed the list. That must not take the place of the verdict.
      return;
    }
    if (resources.some(({ kind }) => kind !== 'process' && kind !== 'directory')) return;
    rmSync(this.#file, { force: true });
    if (this.#outDir !== undefined) unmarkOutDirectory(this.#outDir, this.runId);
  }

  /**
   * Appends a line, and syncs it unless it marks a removal. It never makes the list again: one without the line of the kit
   * would be that of nobody.
   * @param flags further flags of open(2).
   * @throws KitError kit-failed when the file cannot be written, or has vanished.
   */
  #write(line: Line, path = this.#file, flags = 0): void {
    try {
      const { O_APPEND, O_WRONLY, O_NOFOLLOW } = constants;
      const file = openSync(path, O_APPEND | O_WRONLY | O_NOFOLLOW | flags, 0o600);
      try {
        appendFileSync(file, `${JSON.stringify(line)}\n`);
        if (line.line !== 'gone') fsyncSync(file);
      } finally {
        closeSync(file);
      }
    } catch (error) {
      const message = `${this.#file}: the list of resources cannot be written: ${messageOf(error)}`;
      throw new KitError('kit-failed', message, { cause: error });
    }
  }
}

/**
 * Reads the registered runs of a state directory. It skips damaged lines, such as one that a crash has cut off.
 * @throws KitError bad-usage when a directory of lists exists and cannot be read.
 */
export function registeredRuns(stateDir = stateDirectory()): RegisteredRun[] {
  return allRegisteredRuns().filter((run) => isSameDirectory(run.stateDir, stateDir));
}

/** Reads the list of resources of a run again. Returns undefined when it is gone: the run has ended, or was cleaned up. */
export function rereadRun({ file, runId }: Pick<RegisteredRun, 'file' | 'runId'>): RegisteredRun | undefined {
  if (file === undefined) return undefined;
  try {
    return readRun(file, runId);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
}

/**
 * Reads the registered runs of this user, whatever their state directories are.
 * @throws KitError bad-usage when a directory of lists exists and cannot be read.
 */
export function allRegisteredRuns(): RegisteredRun[] {
  return readLists().flatMap((list) => ('run' in list ? [list.run] : []));
}

/**
 * Lists the files that look like lists of resources and are not believed: those of other users, and any file in
 * a state directory, where a checkout or a target could have put it.
 */
export function refusedFiles(stateDir = stateDirectory()): RefusedFile[] {
  const foreign = join(stateDir, 'residue');
  const inStateDir = namesIn(foreign).map((name) => ({
    file: join(foreign, name),
    why: 'a file in the state directory may come from a checkout or from a target; lists of resources are elsewhere',
  }));
  return [...readLists().flatMap((list) => ('refused' in list ? [list.refused] : [])), ...inStateDir];
}

type ReadList = { run: RegisteredRun } | { refused: RefusedFile };

function readLists(): ReadList[] {
  return readPlaces().flatMap((place): ReadList[] => {
    const dir = join(place, 'runs');
    const why = whyNotOwnDirectoryOf(place) ?? whyNotOwnDirectoryOf(dir);
    if (why === 'missing') return [];
    if (why !== undefined) return [{ refused: { file: dir, why } }];
    return namesIn(dir).flatMap((name): ReadList[] => {
      const file = join(dir, name);
      try {
        return [{ run: readRun(file, name.slice(0, -'.jsonl'.length)) }];
      } catch (error) {
        // The run has ended since the directory was listed.
        if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return [];
        return [{ refused: { file, why: messageOf(error) } }];
      }
    });
  });
}

/** Returns why a directory of lists is not believed, or `missing`. */
function whyNotOwnDirectoryOf(path: string): string | undefined {
  try {
    return whyNotOwnDirectory(path);
  } catch (error) {
    // A user without a home directory may have no right to read there.
    if (error instanceof Error && 'code' in error && (error.code === 'ENOTDIR' || error.code === 'EACCES'))
      return 'missing';
    throw error;
  }
}

/** Lists the names of lists in a directory, sorted; empty when it is no directory. */
function namesIn(dir: string): string[] {
  try {
    return readdirSync(dir)
      .filter((name) => name.endsWith('.jsonl'))
      .sort();
  } catch (error) {
    if (error instanceof Error && 'code' in error && /ENOENT|ENOTDIR/.test(String(error.code))) return [];
    throw new KitError('bad-usage', `${dir}: expected a directory to read: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

function isSameDirectory(a: string, b: string): boolean {
  const real = (path: string) => {
    try {
      return realpathSync(path);
    } catch {
      return resolve(path);
    }
  };
  return a !== '' && (resolve(a) === resolve(b) || real(a) === real(b));
}

/** @throws Error when the file is not this user's own, cannot be read, or does not begin with the line of the run's kit. */
function readRun(file: string, runId: string): RegisteredRun {
  const remaining = new Map<string, Resource>();
  const run: RegisteredRun = {
    ...{ runId, file, stateDir: '', outDir: undefined },
    ...{ alive: false, sameBoot: false, sinceTicks: 0, isWatched: false, resources: [] },
  };
  let kitPid: number | undefined;
  let isForeign = false;
  for (const [index, text] of readOwnFile(file).split('\n').entries()) {
    const line = parseLine(text);
    if (index === 0 && (line?.line !== 'kit' || line.runId !== runId))
      throw new Error(`it does not begin with the line of the kit of run ${runId}`);
    if (line === undefined) continue;
    if (line.line === 'kit') {
      // The kit writes this line before it starts anything. A later one is not the kit's.
      if (index > 0) continue;
      kitPid = line.pid;
      isForeign = line.pidNamespace !== undefined && line.pidNamespace !== pidNamespaceOf('self');
      run.stateDir = line.state;
      run.outDir = line.out;
      run.sameBoot = line.boot === bootId();
      run.sinceTicks = line.startTicks;
      run.namespace = line.namespace;
      run.alive = run.sameBoot && (isForeign ? mayBeAliveElsewhere(runId) : isAlive(line));
    } else if (line.line === 'watchdog') {
      // As long as the watchdog is a child of the kit, it waits for the kit's end and removes nothing.
      const isOrphan = processEntry(line.pid)?.parent !== kitPid;
      run.isWatched = run.sameBoot && !isForeign && isAlive(line) && isOrphan;
    } else if (line.line === 'made') {
      remaining.set(JSON.stringify(line.resource), line.resource);
    } else {
      remaining.delete(JSON.stringify(line.resource));
    }
  }
  run.resources = [...remaining.values()].reverse();
  return run;
}

const ResourceShape = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('process'), pid: z.number().int().positive(), startTicks: z.number() }),
  z.object({
    kind: z.enum(['directory', 'mount', 'loop', 'mapping', 'network']),
    path: z.string().startsWith('/'),
  }),
  z.object({ kind: z.literal('containers'), engine: z.string() }),
]);
const LineShape = z.discriminatedUnion('line', [
  z.object({
    line: z.literal('kit'),
    runId: z.string(),
    pid: z.number(),
    startTicks: z.number(),
    boot: z.string(),
    namespace: z.string().optional(),
    pidNamespace: z.string().optional(),
    state: z.string(),
    out: z.string().optional(),
  }),
  z.object({ line: z.literal('watchdog'), pid: z.number().int().positive(), startTicks: z.number() }),
  z.object({ line: z.enum(['made', 'gone']), resource: ResourceShape }),
]);

/**
 * Reports whether a run may be alive whose kit is in another pid namespace of this machine, as in a container that shares
 * the home directory. Its process ids say nothing here.
 */
function mayBeAliveElsewhere(runId: string): boolean {
  return !seesAllProcesses() || new MachineRuns().mayBeAlive(runId);
}

/** Reports whether a process lives. A zombie counts as dead: its parent has only not waited for it yet. */
function isAlive({ pid, startTicks }: { pid: number; startTicks: number }): boolean {
  const entry = processEntry(pid);
  return entry?.startTicks === startTicks && entry.state !== 'Z';
}

function parseLine(text: string): Line | undefined {
  if (text === '') return undefined;
  try {
    const parsed = LineShape.safeParse(JSON.parse(text));
    return parsed.success ? (parsed.data as Line) : undefined;
  } catch {
    return undefined;
  }
}

import { randomBytes } from 'node:crypto';
import { appendFileSync, closeSync, fsyncSync, openSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { KitError, messageOf } from '../../conformance/errors.js';
import type { StoppedDisk } from '../../faults/power/mounts.js';
import { makeWritableDirectory } from './directories.js';
import { bootId, mountNamespaceOf, processEntry } from './processes.js';
import { diskResumed, diskStopping, forgetRun, watchRun } from './watchdog.js';

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
  | { kind: 'mapping'; path: string };

type Line =
  | {
      line: 'kit';
      runId: string;
      pid: number;
      startTicks: number;
      boot: string;
      namespace?: string | undefined;
    }
  | { line: 'watchdog'; pid: number; startTicks: number }
  | { line: 'made'; resource: Resource }
  | { line: 'gone'; resource: Resource };

/** A registered run. The kit process of the run is still alive, or it was killed. */
export interface RegisteredRun {
  runId: string;
  /** The registry of the run; undefined when it is gone. */
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

/** Returns the directory in which runs save their evidence and register their resources. */
export function stateDirectory(): string {
  return resolve(process.env.PLUGPULL_STATE ?? '.plugpull');
}

/** Makes the id of a run: the time, and a random part that makes it unique. */
export function newRunId(): string {
  const day = new Date().toISOString().slice(0, 19).replaceAll(/[-:]/g, '').replace('T', '-');
  return `${day}-${randomBytes(4).toString('hex')}`;
}

/**
 * The list of resources that a run has made and not yet removed, one file per run. A resource is registered
 * before it is made, because the kit may be killed between any two of its statements.
 */
export class Registry {
  readonly runId: string;
  readonly #file: string;
  readonly #stateDir: string;
  /** Descriptor of the registry's file. Other runs see by it that this run is alive. */
  #heldFd: number | undefined;
  #isWatched = false;

  constructor(runId: string, stateDir = stateDirectory()) {
    this.runId = runId;
    this.#stateDir = stateDir;
    makeWritableDirectory(residueDir(stateDir), `${stateDir} (PLUGPULL_STATE)`);
    this.#file = join(residueDir(stateDir), `${runId}.jsonl`);
    const startTicks = processEntry(process.pid)?.startTicks ?? 0;
    try {
      const namespace = mountNamespaceOf(process.pid);
      this.#write({ line: 'kit', runId, pid: process.pid, startTicks, boot: bootId(), namespace });
      this.#heldFd = openSync(this.#file, 'r');
    } catch (error) {
      rmSync(this.#file, { force: true });
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
    const watchdog = watchRun(this.runId, this.#stateDir);
    if (watchdog === undefined) return;
    this.#write({
      line: 'watchdog',
      pid: watchdog.pid,
      startTicks: processEntry(watchdog.pid)?.startTicks ?? 0,
    });
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

  /** Ends the run. Deletes its file, unless a resource is left that only `clean` can remove from now on. */
  close(): void {
    forgetRun(this.runId);
    if (this.#heldFd !== undefined) closeSync(this.#heldFd);
    this.#heldFd = undefined;
    const { resources } = readRun(this.#file, this.runId);
    if (resources.some(({ kind }) => kind !== 'process' && kind !== 'directory')) return;
    rmSync(this.#file, { force: true });
  }

  /**
   * Appends a line, and syncs it unless it marks a removal.
   * @throws KitError kit-failed when the file cannot be written.
   */
  #write(line: Line): void {
    try {
      const file = openSync(this.#file, 'a');
      try {
        appendFileSync(file, `${JSON.stringify(line)}\n`);
        if (line.line !== 'gone') fsyncSync(file);
      } finally {
        closeSync(file);
      }
    } catch (error) {
      const message = `${this.#file}: what a run makes cannot be written down: ${messageOf(error)}`;
      throw new KitError('kit-failed', message, { cause: error });
    }
  }
}

/**
 * Reads every registered run. It skips damaged lines, such as one that a crash has cut off.
 * @throws KitError bad-usage when the state directory exists and cannot be read.
 */
export function registeredRuns(stateDir = stateDirectory()): RegisteredRun[] {
  let names: string[];
  try {
    names = readdirSync(residueDir(stateDir));
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return [];
    const message = `${stateDir} (PLUGPULL_STATE): expected a directory to read: ${messageOf(error)}`;
    throw new KitError('bad-usage', message, { cause: error });
  }
  return names
    .filter((name) => name.endsWith('.jsonl'))
    .sort()
    .flatMap((name) => {
      const file = join(residueDir(stateDir), name);
      return rereadRun({ file, runId: name.slice(0, -'.jsonl'.length) }) ?? [];
    });
}

/** Reads the file of a run again. Returns undefined when it is gone: the run has ended, or was cleaned up. */
export function rereadRun({ file, runId }: Pick<RegisteredRun, 'file' | 'runId'>): RegisteredRun | undefined {
  if (file === undefined) return undefined;
  try {
    return readRun(file, runId);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
}

function readRun(file: string, runId: string): RegisteredRun {
  const remaining = new Map<string, Resource>();
  const run: RegisteredRun = {
    ...{ runId, file, alive: false, sameBoot: false, sinceTicks: 0, isWatched: false, resources: [] },
  };
  let kitPid: number | undefined;
  for (const text of readFileSync(file, 'utf8').split('\n')) {
    const line = parseLine(text);
    if (line === undefined) continue;
    if (line.line === 'kit') {
      kitPid = line.pid;
      run.sameBoot = line.boot === bootId();
      run.sinceTicks = line.startTicks;
      run.namespace = line.namespace;
      run.alive = run.sameBoot && isAlive(line);
    } else if (line.line === 'watchdog') {
      // As long as the watchdog is a child of the kit, it waits for the kit's end and removes nothing.
      const isOrphan = processEntry(line.pid)?.parent !== kitPid;
      run.isWatched = run.sameBoot && isAlive(line) && isOrphan;
    } else if (line.line === 'made') {
      remaining.set(JSON.stringify(line.resource), line.resource);
    } else {
      remaining.delete(JSON.stringify(line.resource));
    }
  }
  run.resources = [...remaining.values()].reverse();
  return run;
}

/** Reports whether a process lives. A zombie counts as dead: its parent has only not waited for it yet. */
function isAlive({ pid, startTicks }: { pid: number; startTicks: number }): boolean {
  const entry = processEntry(pid);
  return entry?.startTicks === startTicks && entry.state !== 'Z';
}

function parseLine(text: string): Line | undefined {
  if (text === '') return undefined;
  try {
    return JSON.parse(text) as Line;
  } catch {
    return undefined;
  }
}

function residueDir(stateDir: string): string {
  return join(stateDir, 'residue');
}

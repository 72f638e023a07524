import { randomBytes } from 'node:crypto';
import { appendFileSync, closeSync, fsyncSync, openSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { KitError, messageOf } from '../../conformance/errors.js';
import { makeWritableDirectory } from './directories.js';
import { bootId, processEntry } from './processes.js';

/** Something outside the kit's own memory that has to be removed again. */
export type Resource =
  | { kind: 'process'; pid: number; startTicks: number }
  | { kind: 'directory'; path: string }
  /** Containers, networks and volumes that carry the run's id on an engine. */
  | { kind: 'containers'; engine: string }
  | { kind: 'mount'; path: string }
  /** Known by the file behind it: the number is the kernel's choice. */
  | { kind: 'loop'; path: string }
  /** A device of the device mapper, with its path below /dev/mapper. */
  | { kind: 'mapping'; path: string };

type Line =
  | { line: 'kit'; runId: string; pid: number; startTicks: number; boot: string }
  | { line: 'made'; resource: Resource }
  | { line: 'gone'; resource: Resource };

/** A run that is registered: by a kit that still lives, or by one that was killed. */
export interface RegisteredRun {
  runId: string;
  file: string;
  alive: boolean;
  /** False after a reboot: its processes and mounts went with the kernel. */
  sameBoot: boolean;
  /** When its kit was started, in clock ticks since boot. */
  sinceTicks: number;
  /** What is left, the newest first, which is the order of removal. */
  resources: Resource[];
}

/** Where runs keep their evidence and register what they make. */
export function stateDirectory(): string {
  return resolve(process.env.PLUGPULL_STATE ?? '.plugpull');
}

/** A name for a run: when, and something that no other run has. */
export function newRunId(): string {
  const day = new Date().toISOString().slice(0, 19).replaceAll(/[-:]/g, '').replace('T', '-');
  return `${day}-${randomBytes(4).toString('hex')}`;
}

/**
 * The list of what a run has made and not yet removed, one file per run. A thing is written down before it is made:
 * the kit may be killed between any two of its own lines.
 */
export class Registry {
  readonly runId: string;
  readonly #file: string;

  constructor(runId: string, stateDir = stateDirectory()) {
    this.runId = runId;
    makeWritableDirectory(residueDir(stateDir), `${stateDir} (PLUGPULL_STATE)`);
    this.#file = join(residueDir(stateDir), `${runId}.jsonl`);
    const startTicks = processEntry(process.pid)?.startTicks ?? 0;
    try {
      this.#write({ line: 'kit', runId, pid: process.pid, startTicks, boot: bootId() });
    } catch (error) {
      rmSync(this.#file, { force: true });
      throw error;
    }
  }

  made(resource: Resource): void {
    this.#write({ line: 'made', resource });
  }

  /** Where it cannot be written down the resource counts as left, and `clean` will find that it is gone. */
  gone(resource: Resource): void {
    try {
      this.#write({ line: 'gone', resource });
    } catch {
      // Removing what is left goes on, on a full disk above all.
    }
  }

  /** The end of the run. Forgets it, unless something is left that only `clean` can now remove. */
  close(): void {
    const { resources } = readRun(this.#file, this.runId);
    if (resources.some(({ kind }) => kind !== 'process' && kind !== 'directory')) return;
    rmSync(this.#file, { force: true });
  }

  /** @throws KitError kit-failed */
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
 * Reads every registered run; a file with damage (a line cut off by a crash) is read as far as it goes.
 * @throws KitError bad-usage when there is a state directory that cannot be read.
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
    .map((name) => readRun(join(residueDir(stateDir), name), name.slice(0, -'.jsonl'.length)));
}

function readRun(file: string, runId: string): RegisteredRun {
  const remaining = new Map<string, Resource>();
  const run: RegisteredRun = { runId, file, alive: false, sameBoot: false, sinceTicks: 0, resources: [] };
  for (const text of readFileSync(file, 'utf8').split('\n')) {
    const line = parseLine(text);
    if (line === undefined) continue;
    if (line.line === 'kit') {
      run.sameBoot = line.boot === bootId();
      run.sinceTicks = line.startTicks;
      const kit = processEntry(line.pid);
      // One that nobody has waited for yet is dead.
      run.alive = run.sameBoot && kit?.startTicks === line.startTicks && kit.state !== 'Z';
    } else if (line.line === 'made') {
      remaining.set(JSON.stringify(line.resource), line.resource);
    } else {
      remaining.delete(JSON.stringify(line.resource));
    }
  }
  run.resources = [...remaining.values()].reverse();
  return run;
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

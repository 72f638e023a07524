import { dirname } from 'node:path';
import { chooseSurvivors, createPick, type RandomPick, SECTOR_BYTES, SimFile } from './medium.js';

/** Capacity of a FIFO in bytes (pipe(7)). */
const FIFO_BYTES = 65_536;

/** A FIFO of the simulated machine. */
export class SimFifo {
  readonly kind = 'fifo';
  bytes: Buffer = Buffer.alloc(0);
  /** Number of open file descriptions. When the last one is closed, the content is lost. */
  openCount = 0;

  get freeBytes(): number {
    return FIFO_BYTES - this.bytes.length;
  }
}

interface FileNode {
  readonly kind: 'file';
  file: SimFile;
}

/** The object to which a name refers. */
export type Node = FileNode | SimFifo | { readonly kind: 'directory' };

/** An open file description, which owns locks. */
export interface OpenFile {
  path: string;
  node: Node;
}

/**
 * A change of a name. A power cut may undo it, and all later changes of names, until its directory is synced.
 */
export type NameChange =
  | { change: 'add'; path: string; node: Node }
  | { change: 'rename'; from: string; to: string }
  | { change: 'remove'; path: string };

/** Damage to a file while no process runs. `zeroed` affects one sector. */
export type FileDamage = 'removed' | 'truncated' | 'overwritten' | 'zeroed';

interface ByteLock {
  exclusive: OpenFile | undefined;
  shared: Set<OpenFile>;
}

/**
 * A machine in memory: the names, files, FIFOs and locks that its processes share, and its clocks. A power
 * cut leaves a new machine.
 */
export class SimMachine {
  names = new Map<string, Node>();
  #durableNames = new Map<string, Node>();
  #unsynced: NameChange[] = [];
  readonly #locks = new Map<string, ByteLock>();
  nowMs = 1000;
  /** Difference between the wall clock and the monotonic clock, in milliseconds. */
  dateOffsetMs = 1_700_000_000_000;
  /** Callback after a sync of a whole file. The medium then has its content as of the logical time `since`. */
  onSynced: (file: SimFile, since: number) => void = () => undefined;
  /** Callback for the log of the run. */
  log: (line: string) => void = () => undefined;
  /** Number of further syncs that fail. Each failure reduces it by one. */
  failingSyncs = 0;
  /** Number of syncs that succeed before those that fail. */
  syncsBeforeFailure = 0;
  readonly #driveOf: (path: string) => number;
  #logicalTime = 0;

  /** @param driveOf returns the number of the drive on which a path is */
  constructor(driveOf: (path: string) => number) {
    this.#driveOf = driveOf;
  }

  /** Advances the logical time, which orders events, and returns it. */
  nextMoment(): number {
    this.#logicalTime += 1;
    return this.#logicalTime;
  }

  file(path: string): SimFile | undefined {
    const node = this.names.get(path);
    return node?.kind === 'file' ? node.file : undefined;
  }

  files(): [string, SimFile][] {
    const found: [string, SimFile][] = [];
    for (const [path, node] of this.names) if (node.kind === 'file') found.push([path, node.file]);
    return found;
  }

  /** Creates an empty file. Its name is durable once its directory is synced. */
  create(path: string): Node {
    const node: Node = { kind: 'file', file: new SimFile(this.#driveOf(path)) };
    this.changeNames({ change: 'add', path, node });
    return node;
  }

  /** Applies a change of a name. It is durable once the directory is synced. */
  changeNames(change: NameChange): void {
    applyChange(this.names, change);
    this.#unsynced.push(change);
  }

  /**
   * Writes the changed names in one directory to the medium. It does not write the name of the directory
   * itself, which is in the parent directory.
   */
  syncNames(directory: string): void {
    const isIn = (change: NameChange): boolean =>
      dirname(change.change === 'rename' ? change.to : change.path) === directory;
    for (const change of this.#unsynced) if (isIn(change)) applyChange(this.#durableNames, change);
    this.#unsynced = this.#unsynced.filter((change) => !isIn(change));
  }

  /** Writes dirty pages back and flushes the drive. @returns 0, or the errno of the failure */
  sync(path: string, file: SimFile, from: number, to: number): number {
    const dirty = file.dirtyPages(from, to);
    if (this.injectSyncFailure(path, file, dirty)) return 5;
    for (const page of dirty) file.writeBack(page);
    this.flush(file.drive);
    file.settleSize(file.sizeMark);
    return 0;
  }

  /** Returns whether this sync fails. If it fails, its pages become clean without being written. */
  injectSyncFailure(path: string, file: SimFile, pages: readonly number[]): boolean {
    if (!this.#takeSyncFailure()) return false;
    for (const page of pages) file.failWriteBack(page);
    file.failSize();
    this.log(`the sync of pages ${pages.join(', ')} of ${shortPath(path)} fails: EIO`);
    return true;
  }

  /** Returns whether this sync of a directory fails. If it fails, its changed names are not on the medium. */
  injectDirectorySyncFailure(path: string): boolean {
    if (!this.#takeSyncFailure()) return false;
    this.log(`the sync of the directory ${path} fails: EIO`);
    return true;
  }

  #takeSyncFailure(): boolean {
    if (this.failingSyncs === 0) return false;
    if (this.syncsBeforeFailure > 0) {
      this.syncsBeforeFailure -= 1;
      return false;
    }
    this.failingSyncs -= 1;
    return true;
  }

  /** Flushes the cache of a drive, for all files on it. */
  flush(drive: number): void {
    for (const [, file] of this.files()) if (file.drive === drive) file.flush();
  }

  /** Returns the lock on one byte of a file. */
  lockOf(path: string, byte: number): ByteLock {
    const key = `${path}#${byte}`;
    let lock = this.#locks.get(key);
    if (!lock) {
      lock = { exclusive: undefined, shared: new Set() };
      this.#locks.set(key, lock);
    }
    return lock;
  }

  /** Returns whether one of the given bytes of any file is locked exclusively. */
  isLocked(bytes: readonly number[]): boolean {
    for (const [key, lock] of this.#locks) {
      if (lock.exclusive && bytes.includes(Number(key.slice(key.indexOf('#') + 1)))) return true;
    }
    return false;
  }

  /** Closes an open file description: releases its locks and empties a FIFO that no process has open any more. */
  close(opening: OpenFile): void {
    if (opening.node.kind === 'fifo') {
      opening.node.openCount -= 1;
      if (opening.node.openCount === 0) opening.node.bytes = Buffer.alloc(0);
    }
    for (const lock of this.#locks.values()) {
      if (lock.exclusive === opening) lock.exclusive = undefined;
      lock.shared.delete(opening);
    }
  }

  /** Writes some dirty pages back and flushes some drives, as a kernel does at any time. */
  writeBack(pick: RandomPick): void {
    for (const [path, file] of this.files()) {
      for (const page of file.dirtyPages()) {
        if (pick(2) === 0) continue;
        file.writeBack(page);
        this.log(`the kernel writes back page ${page} of ${shortPath(path)}`);
      }
      if (pick(4) === 0) this.flush(file.drive);
    }
  }

  /** Damages a file on the medium. */
  damage(path: string, how: FileDamage, pick: RandomPick): void {
    const file = this.file(path);
    if (!file) return;
    if (how === 'removed') this.changeNames({ change: 'remove', path });
    else if (how === 'truncated') file.resize(pick(file.sizeBytes));
    else if (how === 'zeroed') {
      const written = writtenSectors(file);
      written[pick(written.length)]?.fill(0);
    } else {
      const at = pick(file.sizeBytes);
      const end = Math.min(file.sizeBytes, at + pick(2 * file.sizeBytes));
      for (let byte = at; byte < end; byte += 1) file.cache[byte] = pick(256);
    }
    this.syncNames(dirname(path));
    this.sync(path, file, 0, file.pages);
  }

  /**
   * Returns the machine after a power cut and a reboot. `seed` selects which
   * unflushed data survives (medium.ts).
   */
  afterPowerCut(seed: number): SimMachine {
    const left = new SimMachine(this.#driveOf);
    const pick = createPick(seed);
    const names = new Map(this.#durableNames);
    const unsyncedCount = this.#unsynced.length;
    const survivingChanges = seed < 3 ? (seed === 0 ? 0 : unsyncedCount) : pick(unsyncedCount + 1);
    for (const change of this.#unsynced.slice(0, survivingChanges)) applyChange(names, change);
    const isThere = (path: string): boolean => names.has(path) && (path === '/' || isThere(dirname(path)));
    for (const [path, node] of names) {
      if (!isThere(path)) continue;
      left.names.set(
        path,
        node.kind === 'file'
          ? { kind: 'file', file: node.file.afterPowerCut(chooseSurvivors(seed, pick)) }
          : afterReboot(node),
      );
    }
    left.#durableNames = new Map(left.names);
    left.#inherit(this);
    return left;
  }

  /** Returns a copy of the machine with its page cache but without its processes. */
  copy(): SimMachine {
    const copy = new SimMachine(this.#driveOf);
    const copies = new Map<Node, Node>();
    const copied = (node: Node): Node => {
      const known = copies.get(node);
      if (known) return known;
      const made: Node = node.kind === 'file' ? { kind: 'file', file: node.file.copy() } : afterReboot(node);
      copies.set(node, made);
      return made;
    };
    for (const [path, node] of this.names) copy.names.set(path, copied(node));
    for (const [path, node] of this.#durableNames) copy.#durableNames.set(path, copied(node));
    copy.#unsynced = this.#unsynced.map((change) =>
      change.change === 'add' ? { ...change, node: copied(change.node) } : change,
    );
    copy.#inherit(this);
    return copy;
  }

  #inherit(from: SimMachine): void {
    this.#logicalTime = from.#logicalTime;
    this.nowMs = from.nowMs;
    this.dateOffsetMs = from.dateOffsetMs;
  }
}

/** Returns the sectors of the page cache that are not all zeros. */
function writtenSectors({ cache }: SimFile): Buffer[] {
  const written: Buffer[] = [];
  for (let at = 0; at < cache.length; at += SECTOR_BYTES) {
    const sector = cache.subarray(at, at + SECTOR_BYTES);
    if (sector.some((byte) => byte !== 0)) written.push(sector);
  }
  return written;
}

function applyChange(names: Map<string, Node>, change: NameChange): void {
  if (change.change === 'add') names.set(change.path, change.node);
  if (change.change === 'remove') names.delete(change.path);
  if (change.change !== 'rename') return;
  const node = names.get(change.from);
  if (!node) return;
  names.delete(change.from);
  names.set(change.to, node);
}

/** Returns the node after a reboot. A FIFO is empty then, because no process has it open. */
const afterReboot = (node: Exclude<Node, FileNode>): Node => (node.kind === 'fifo' ? new SimFifo() : node);

/** Returns the last two parts of a path, which are enough for the log. */
export const shortPath = (path: string): string => path.slice(dirname(dirname(path)).length + 1);

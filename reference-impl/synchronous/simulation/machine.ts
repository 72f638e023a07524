import { dirname } from 'node:path';
import { chooseSurvivors, createPick, type RandomPick, SECTOR_BYTES, SimFile } from './medium.js';

/** A FIFO holds so much (pipe(7)). */
const FIFO_BYTES = 65_536;

export class SimFifo {
  readonly kind = 'fifo';
  bytes: Buffer = Buffer.alloc(0);
  /** Openings; when the last goes, what is in the FIFO goes too. */
  openCount = 0;

  get freeBytes(): number {
    return FIFO_BYTES - this.bytes.length;
  }
}

interface FileNode {
  readonly kind: 'file';
  file: SimFile;
}

export type Node = FileNode | SimFifo | { readonly kind: 'directory' };

/** One opening of a name, which owns locks. */
export interface OpenFile {
  path: string;
  node: Node;
}

/** What is done to names; on the medium only when their directory is synced, and in this order. */
export type NameChange =
  | { change: 'add'; path: string; node: Node }
  | { change: 'rename'; from: string; to: string }
  | { change: 'remove'; path: string };

/** What somebody does to a file while nothing runs; `zeroed`: to one sector of it. */
export type FileDamage = 'removed' | 'truncated' | 'overwritten' | 'zeroed';

interface ByteLock {
  exclusive: OpenFile | undefined;
  shared: Set<OpenFile>;
}

/**
 * A machine in memory: names, files, FIFOs and locks that its processes share, and its clocks. What a power cut leaves of
 * it is another machine.
 */
export class SimMachine {
  names = new Map<string, Node>();
  #durableNames = new Map<string, Node>();
  #unsynced: NameChange[] = [];
  readonly #locks = new Map<string, ByteLock>();
  nowMs = 1000;
  /** How far the wall clock is from the monotonic one. */
  dateOffsetMs = 1_700_000_000_000;
  /** Told when a file as a whole is on the medium: everything that was in it at the moment named by `since`. */
  onSynced: (file: SimFile, since: number) => void = () => undefined;
  /** Told what happens, for the story. */
  log: (line: string) => void = () => undefined;
  /** The msync calls from now on that fail, one less with each. */
  failingSyncs = 0;
  readonly #driveOf: (path: string) => number;
  #logicalTime = 0;

  /** @param driveOf which drive a path is on. */
  constructor(driveOf: (path: string) => number) {
    this.#driveOf = driveOf;
  }

  /** Counts on with each call: orders what happens. */
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

  create(path: string): Node {
    const node: Node = { kind: 'file', file: new SimFile(this.#driveOf(path)) };
    this.changeNames({ change: 'add', path, node });
    return node;
  }

  changeNames(change: NameChange): void {
    applyChange(this.names, change);
    this.#unsynced.push(change);
  }

  /** Puts on the medium what was done to the names in one directory; its own name is in its parent. */
  syncNames(directory: string): void {
    const isIn = (change: NameChange): boolean =>
      dirname(change.change === 'rename' ? change.to : change.path) === directory;
    for (const change of this.#unsynced) if (isIn(change)) applyChange(this.#durableNames, change);
    this.#unsynced = this.#unsynced.filter((change) => !isIn(change));
  }

  /** Writes pages back and waits for the drive. @returns errno */
  sync(path: string, file: SimFile, from: number, to: number): number {
    const dirty = file.dirtyPages(from, to);
    if (this.injectSyncFailure(path, file, dirty)) return 5;
    for (const page of dirty) file.writeBack(page);
    this.flush(file.drive);
    return 0;
  }

  /** Is this one of the syncs that fail? Then the pages that it should have written are clean, and nowhere. */
  injectSyncFailure(path: string, file: SimFile, pages: readonly number[]): boolean {
    if (this.failingSyncs === 0) return false;
    this.failingSyncs -= 1;
    for (const page of pages) file.failWriteBack(page);
    this.log(`the sync of pages ${pages.join(', ')} of ${shortPath(path)} fails: EIO`);
    return true;
  }

  flush(drive: number): void {
    for (const [, file] of this.files()) if (file.drive === drive) file.flush();
  }

  lockOf(path: string, byte: number): ByteLock {
    const key = `${path}#${byte}`;
    let lock = this.#locks.get(key);
    if (!lock) {
      lock = { exclusive: undefined, shared: new Set() };
      this.#locks.set(key, lock);
    }
    return lock;
  }

  /** Does anybody hold one of these bytes of any file alone? */
  isLocked(bytes: readonly number[]): boolean {
    for (const [key, lock] of this.#locks) {
      if (lock.exclusive && bytes.includes(Number(key.slice(key.indexOf('#') + 1)))) return true;
    }
    return false;
  }

  /** An opening ends: its locks are free, and a FIFO that nobody has open any more is empty. */
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

  /** Some dirty pages are written back, as the kernel does now and then. */
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

  /** The machine that boots after a power cut; `seed` says what of the unflushed it finds (medium.ts). */
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

  /** The same machine again, with everything in its memory but no process. */
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

/** Sectors that are not zero already, as they are in the page cache. */
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

/** Nobody has a FIFO open in a machine without processes, so it is empty. */
const afterReboot = (node: Exclude<Node, FileNode>): Node => (node.kind === 'fifo' ? new SimFifo() : node);

/** The last part of a path with its directory: enough for a story. */
export const shortPath = (path: string): string => path.slice(dirname(dirname(path)).length + 1);

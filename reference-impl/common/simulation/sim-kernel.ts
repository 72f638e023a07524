import { constants } from 'node:fs';
import type { Kernel, Registration } from '../platform/kernel.js';
import { PAGE_BYTES } from '../platform/map.js';
import { EAGAIN, EEXIST, F_OFD_GETLK } from '../platform/native.js';
import { type Node, type OpenFile, SimFifo, type SimMachine, shortPath } from './machine.js';
import { createPick, type SimFile } from './medium.js';
import type { ProcessLifetime } from './process-lifetime.js';
import { stepped } from './stepped.js';

const F_RDLCK = 0;
const F_UNLCK = 2;
const POLLIN = 1;
/**
 * Simulated duration of an empty poll(2) in milliseconds. Without it a process
 * that polls in a loop would never end.
 */
const EMPTY_POLL_MS = 0.05;

/** A task that the event loop of a process could run next. */
interface Task {
  kind: string;
  run: () => unknown;
}

interface Timer {
  intervalMs: number;
  dueMs: number;
  callback: () => unknown;
}

interface FifoListener {
  fd: number;
  fifo: SimFifo;
  callback: (bytes: Buffer) => void;
}

/**
 * The kernel of one simulated process. Its system calls act on the shared machine, and each is a step of the
 * process. The scheduler picks the next task of its event loop. Calls with arguments that the queue does not
 * use throw an error.
 */
export class SimKernel implements Kernel {
  readonly #machine: SimMachine;
  readonly #lifetime: ProcessLifetime;
  readonly #open = new Map<number, OpenFile>();
  readonly #mappings = new Map<ArrayBufferLike, { path: string; file: SimFile }>();
  readonly #deferred: (() => unknown)[] = [];
  readonly #timers = new Set<Timer>();
  readonly #fifoListeners = new Set<FifoListener>();
  readonly #io: (() => void)[] = [];
  readonly #name: string;
  #nextFd = 3;
  #errno = 0;

  constructor(machine: SimMachine, lifetime: ProcessLifetime, name: string) {
    this.#machine = machine;
    this.#lifetime = lifetime;
    this.#name = name;
  }

  /** Returns the tasks that the event loop could run now, in a deterministic order. */
  tasks(): Task[] {
    const tasks: Task[] = [];
    const [next] = this.#deferred;
    if (next) tasks.push({ kind: 'turn', run: () => this.#deferred.shift()?.() });
    for (const arrival of this.#fifoListeners) {
      if (arrival.fifo.bytes.length > 0) tasks.push({ kind: 'arrival', run: () => this.#deliver(arrival) });
    }
    const [io] = this.#io;
    if (io) tasks.push({ kind: 'io', run: () => this.#io.shift()?.() });
    const due = [...this.#timers].filter(({ dueMs }) => dueMs <= this.#machine.nowMs);
    for (const timer of due.sort((a, b) => a.dueMs - b.dueMs)) {
      tasks.push({ kind: 'timer', run: () => this.#fire(timer) });
    }
    return tasks;
  }

  #deliver({ fifo, callback }: FifoListener): void {
    const { bytes } = fifo;
    fifo.bytes = Buffer.alloc(0);
    callback(bytes);
  }

  #fire(timer: Timer): unknown {
    timer.dueMs = this.#machine.nowMs + timer.intervalMs;
    return timer.callback();
  }

  /** Closes all files of the process after its death. */
  release(): void {
    for (const opening of this.#open.values()) this.#machine.close(opening);
    this.#open.clear();
  }

  /** Opens a file that another process has open, as a created process inherits it. @returns the file descriptor */
  inherit(from: SimKernel, fd: number): number {
    const { path, node } = from.#openFile(fd);
    if (node.kind !== 'file') throw systemError('EINVAL', path);
    return this.#addOpen({ path, node });
  }

  #addOpen(opening: OpenFile): number {
    const fd = this.#nextFd;
    this.#nextFd += 1;
    this.#open.set(fd, opening);
    return fd;
  }

  /** Adds a task to the event loop: the end of input or output, such as the message that another process has ended. */
  postIo(callback: () => void): void {
    this.#io.push(callback);
  }

  #openFile(fd: number): OpenFile {
    const opening = this.#open.get(fd);
    if (!opening) throw systemError('EBADF', `${fd}`);
    return opening;
  }

  #fileOf(fd: number): SimFile {
    const { node, path } = this.#openFile(fd);
    if (node.kind !== 'file') throw systemError('EINVAL', path);
    return node.file;
  }

  open(path: string, flags: string | number): number {
    this.#lifetime.step();
    const has = (bit: number): boolean => typeof flags === 'number' && (flags & bit) !== 0;
    const creates = flags === 'w' || has(constants.O_CREAT);
    let node = this.#machine.names.get(path);
    if (!node && !creates) throw systemError('ENOENT', path);
    if (node && has(constants.O_CREAT) && has(constants.O_EXCL)) throw systemError('EEXIST', path);
    node ??= this.#machine.create(path);
    if ((flags === 'w' || has(constants.O_TRUNC)) && node.kind === 'file') node.file.resize(0);
    if (node.kind === 'fifo') node.openCount += 1;
    return this.#addOpen({ path, node });
  }

  close(fd: number): void {
    this.#lifetime.step();
    this.#machine.close(this.#openFile(fd));
    this.#open.delete(fd);
  }

  read(fd: number, to: Buffer, at: number, length: number, position: number | null): number {
    this.#lifetime.step();
    const { node } = this.#openFile(fd);
    if (node.kind === 'fifo') {
      if (node.bytes.length === 0) throw EAGAIN_ERROR;
      const count = node.bytes.copy(to, at, 0, Math.min(length, node.bytes.length));
      node.bytes = node.bytes.subarray(count);
      return count;
    }
    return this.#fileOf(fd).read(to, at, position ?? 0, length);
  }

  write(fd: number, from: Buffer, at: number, length: number, position: number | null): number {
    this.#lifetime.step();
    const { node } = this.#openFile(fd);
    const bytes = from.subarray(at, at + length);
    if (node.kind === 'fifo') {
      if (bytes.length > node.freeBytes) throw EAGAIN_ERROR;
      node.bytes = Buffer.concat([node.bytes, bytes]);
      return length;
    }
    const file = this.#fileOf(fd);
    const to = position ?? file.sizeBytes;
    if (to + length > file.sizeBytes) file.resize(to + length);
    bytes.copy(file.cache, to);
    // A write of the same bytes makes the pages dirty too.
    for (let page = Math.floor(to / PAGE_BYTES); page * PAGE_BYTES < to + length; page += 1)
      file.markDirty(page);
    return length;
  }

  fsync(fd: number): void {
    this.#lifetime.step();
    const { node, path } = this.#openFile(fd);
    if (node.kind === 'file') {
      const since = this.#machine.nextMoment();
      const errno = this.#machine.sync(path, node.file, 0, node.file.pages);
      if (errno !== 0) throw systemError('EIO', path);
      this.#machine.onSynced(node.file, since);
    } else if (this.#machine.injectDirectorySyncFailure(path)) throw systemError('EIO', path);
    else this.#machine.syncNames(path);
  }

  /**
   * Writes pages that were dirty at the start, some at once and some at the end. Pages that become dirty
   * later stay dirty.
   */
  fdatasync(fd: number): Promise<void> {
    this.#lifetime.step();
    const { path } = this.#openFile(fd);
    const file = this.#fileOf(fd);
    const since = this.#machine.nextMoment();
    const dirty = file.dirtyPages();
    const sizeMark = file.sizeMark;
    const pick = createPick(since);
    const latePages = dirty.filter((page) => {
      if (pick(2) === 0) return true;
      file.writeBack(page);
      return false;
    });
    return new Promise((resolve, reject) => {
      this.#io.push(() => {
        this.#lifetime.step();
        if (this.#machine.injectSyncFailure(path, file, latePages)) {
          reject(systemError('EIO', path));
          return;
        }
        for (const page of latePages) if (file.isDirty(page)) file.writeBack(page);
        this.#machine.flush(file.drive);
        file.settleSize(sizeMark);
        this.#machine.onSynced(file, since);
        this.#machine.log(`${this.#name} has synced ${shortPath(path)}`);
        resolve();
      });
    });
  }

  sizeBytes(fd: number): number {
    return this.#fileOf(fd).sizeBytes;
  }

  exists(path: string): boolean {
    this.#lifetime.step();
    return this.#machine.names.has(path);
  }

  isFifo(path: string): boolean {
    return this.#machine.names.get(path)?.kind === 'fifo';
  }

  rename(from: string, to: string): void {
    this.#lifetime.step();
    if (!this.#machine.names.has(from)) throw systemError('ENOENT', from);
    this.#machine.changeNames({ change: 'rename', from, to });
  }

  remove(path: string): void {
    this.#lifetime.step();
    this.#machine.changeNames({ change: 'remove', path });
  }

  makeDirectory(path: string): void {
    if (this.#machine.names.has(path)) throw systemError('EEXIST', path);
    this.#add(path, { kind: 'directory' });
  }

  list(directory: string): string[] {
    this.#lifetime.step();
    const start = `${directory}/`;
    return [...this.#machine.names.keys()]
      .filter((path) => path.startsWith(start))
      .map((path) => path.slice(start.length))
      .filter((name) => !name.includes('/'));
  }

  makeFifo(path: string): number {
    if (this.#machine.names.has(path)) {
      this.#errno = EEXIST;
      return -1;
    }
    this.#add(path, new SimFifo());
    return 0;
  }

  #add(path: string, node: Node): void {
    this.#lifetime.step();
    this.#machine.changeNames({ change: 'add', path, node });
  }

  map(fd: number, offset: number, length: number): Buffer {
    this.#lifetime.step();
    const { path } = this.#openFile(fd);
    const file = this.#fileOf(fd);
    if (offset !== 0) throw systemError('EINVAL', path);
    this.#mappings.set(file.cache.buffer, { path, file });
    return stepped(file.cache.subarray(0, length), this.#lifetime);
  }

  willNeed(): void {}

  msync(map: Buffer, offset: number, length: number, wait: boolean): number {
    this.#lifetime.step();
    if (!wait) return 0;
    const { path, file, from } = this.#mappingAt(map, offset);
    return this.#machine.sync(path, file, from, Math.ceil((offset + length) / PAGE_BYTES));
  }

  markDirty(map: Buffer, at: number): void {
    this.#lifetime.step();
    const { file, from } = this.#mappingAt(map, at);
    file.markDirty(from);
  }

  #mappingAt(map: Buffer, offset: number): { path: string; file: SimFile; from: number } {
    const mapping = this.#mappings.get(map.buffer);
    if (!mapping) throw systemError('EINVAL', 'not a mapping');
    return { ...mapping, from: Math.floor(offset / PAGE_BYTES) };
  }

  /**
   * Calls fcntl(2) for a lock, without ever waiting: the simulation never stops a process that holds a lock
   * for which another process waits.
   */
  fcntlLock(fd: number, command: number, flock: Buffer): number {
    this.#lifetime.step();
    const opening = this.#openFile(fd);
    const byte = Number(flock.readBigInt64LE(8));
    const type = flock.readInt16LE(0);
    const lock = this.#machine.lockOf(opening.path, byte);
    const others = [...lock.shared].some((holder) => holder !== opening);
    const exclusive = lock.exclusive !== undefined && lock.exclusive !== opening;
    const conflict = type !== F_UNLCK && (exclusive || (type !== F_RDLCK && others));
    if (command === F_OFD_GETLK) {
      if (!conflict) flock.writeInt16LE(F_UNLCK, 0);
      return 0;
    }
    if (conflict) {
      this.#errno = EAGAIN;
      return -1;
    }
    if (lock.exclusive === opening) lock.exclusive = undefined;
    lock.shared.delete(opening);
    if (type === F_RDLCK) lock.shared.add(opening);
    else if (type !== F_UNLCK) lock.exclusive = opening;
    return 0;
  }

  errno(): number {
    return this.#errno;
  }

  poll(fds: Buffer, count: number): number {
    this.#lifetime.step();
    let ready = 0;
    for (let index = 0; index < count; index += 1) {
      const { node } = this.#openFile(fds.readInt32LE(8 * index));
      const readable = node.kind === 'fifo' && node.bytes.length > 0;
      fds.writeInt16LE(readable ? POLLIN : 0, 8 * index + 6);
      if (readable) ready += 1;
    }
    if (ready === 0) this.#machine.nowMs += EMPTY_POLL_MS;
    return ready;
  }

  /** Polls once. No other process runs meanwhile, so repeated polls would find nothing new. */
  busyPoll(fds: Buffer, count: number): number {
    return this.poll(fds, count);
  }

  onFifoData(fd: number, _maxBytes: number, callback: (bytes: Buffer) => void): Registration {
    this.#lifetime.step();
    const { node, path } = this.#openFile(fd);
    if (node.kind !== 'fifo') throw systemError('EINVAL', path);
    const listener = { fd, fifo: node, callback };
    this.#fifoListeners.add(listener);
    return {
      close: () => {
        this.#fifoListeners.delete(listener);
        this.close(fd);
      },
    };
  }

  every(intervalMs: number, callback: () => unknown): Registration {
    const timer = { intervalMs, dueMs: this.#machine.nowMs + intervalMs, callback };
    this.#timers.add(timer);
    return { close: () => void this.#timers.delete(timer) };
  }

  after(delayMs: number, callback: () => unknown): void {
    const timer = this.every(delayMs, () => {
      timer.close();
      return callback();
    });
  }

  defer(callback: () => unknown): void {
    this.#lifetime.step();
    this.#deferred.push(callback);
  }

  monotonicMs(): number {
    return this.#machine.nowMs;
  }

  wallClockMs(): number {
    return Math.floor(this.#machine.nowMs + this.#machine.dateOffsetMs);
  }

  randomBytes(count: number): Buffer {
    const pick = createPick(count);
    return Buffer.from(Array.from({ length: count }, () => pick(256)));
  }

  log(): void {}
}

const systemError = (code: string, what: string): Error =>
  Object.assign(new Error(`${code}: ${what}`), { code, syscall: 'simulated' });

/**
 * The error for every empty and every full FIFO. It is created once, because its stack costs more than the
 * whole call.
 */
const EAGAIN_ERROR = systemError('EAGAIN', 'FIFO');

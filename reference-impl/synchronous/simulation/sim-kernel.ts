import { constants } from 'node:fs';
import type { Kernel, Registered } from '../platform/kernel.js';
import { PAGE_BYTES } from '../platform/map.js';
import { EAGAIN, EEXIST, F_OFD_GETLK } from '../platform/native.js';
import type { Life } from './life.js';
import { type Machine, type Node, named, type Opening, SimFifo } from './machine.js';
import { picks, type SimFile } from './medium.js';
import { stepped } from './stepped.js';

const F_RDLCK = 0;
const F_UNLCK = 2;
const POLLIN = 1;
/** What an empty poll(2) takes of the simulated time, so that nobody who spins waits for ever. */
const POLL_MS = 0.05;

/** Something that the event loop of a process would do next. */
interface Task {
  what: string;
  run: () => unknown;
}

interface Timer {
  intervalMs: number;
  dueMs: number;
  callback: () => unknown;
}

interface Arrival {
  fd: number;
  fifo: SimFifo;
  callback: (bytes: Buffer) => void;
}

/**
 * The kernel as one simulated process sees it: system calls on the shared machine, each a step of the process's life, and
 * an event loop whose next task the scheduler picks. It fails where it is asked for something that the queue does not do.
 */
export class SimKernel implements Kernel {
  readonly #machine: Machine;
  readonly #life: Life;
  readonly #open = new Map<number, Opening>();
  readonly #mapped = new Map<ArrayBufferLike, { path: string; file: SimFile }>();
  readonly #soon: (() => unknown)[] = [];
  readonly #timers = new Set<Timer>();
  readonly #arrivals = new Set<Arrival>();
  readonly #io: (() => void)[] = [];
  readonly #name: string;
  #nextFd = 3;
  #errno = 0;

  constructor(machine: Machine, life: Life, name: string) {
    this.#machine = machine;
    this.#life = life;
    this.#name = name;
  }

  /** What the event loop could do now, in an order that is always the same. */
  tasks(): Task[] {
    const tasks: Task[] = [];
    const [next] = this.#soon;
    if (next) tasks.push({ what: 'turn', run: () => this.#soon.shift()?.() });
    for (const arrival of this.#arrivals) {
      if (arrival.fifo.bytes.length > 0) tasks.push({ what: 'arrival', run: () => this.#deliver(arrival) });
    }
    const [io] = this.#io;
    if (io) tasks.push({ what: 'io', run: () => this.#io.shift()?.() });
    const due = [...this.#timers].filter(({ dueMs }) => dueMs <= this.#machine.nowMs);
    for (const timer of due.sort((a, b) => a.dueMs - b.dueMs)) {
      tasks.push({ what: 'timer', run: () => this.#fire(timer) });
    }
    return tasks;
  }

  #deliver({ fifo, callback }: Arrival): void {
    const { bytes } = fifo;
    fifo.bytes = Buffer.alloc(0);
    callback(bytes);
  }

  #fire(timer: Timer): unknown {
    timer.dueMs = this.#machine.nowMs + timer.intervalMs;
    return timer.callback();
  }

  /** The process is gone: the kernel takes back what it had. */
  release(): void {
    for (const opening of this.#open.values()) this.#machine.close(opening);
    this.#open.clear();
  }

  #opening(fd: number): Opening {
    const opening = this.#open.get(fd);
    if (!opening) throw failure('EBADF', `${fd}`);
    return opening;
  }

  #fileOf(fd: number): SimFile {
    const { node, path } = this.#opening(fd);
    if (node.kind !== 'file') throw failure('EINVAL', path);
    return node.file;
  }

  open(path: string, flags: string | number): number {
    this.#life.step();
    const creates = typeof flags === 'string' ? flags === 'w' : (flags & constants.O_CREAT) !== 0;
    let node = this.#machine.names.get(path);
    if (!node && !creates) throw failure('ENOENT', path);
    node ??= this.#machine.create(path);
    if (flags === 'w' && node.kind === 'file') node.file.resize(0);
    if (node.kind === 'fifo') node.opened += 1;
    const fd = this.#nextFd;
    this.#nextFd += 1;
    this.#open.set(fd, { path, node });
    return fd;
  }

  close(fd: number): void {
    this.#life.step();
    this.#machine.close(this.#opening(fd));
    this.#open.delete(fd);
  }

  read(fd: number, to: Buffer, at: number, length: number, position: number | null): number {
    this.#life.step();
    const { node } = this.#opening(fd);
    if (node.kind === 'fifo') {
      if (node.bytes.length === 0) throw AGAIN;
      const count = node.bytes.copy(to, at, 0, Math.min(length, node.bytes.length));
      node.bytes = node.bytes.subarray(count);
      return count;
    }
    const file = this.#fileOf(fd);
    const from = position ?? 0;
    return file.cache.copy(to, at, from, Math.min(from + length, file.sizeBytes));
  }

  write(fd: number, from: Buffer, at: number, length: number, position: number | null): number {
    this.#life.step();
    const { node } = this.#opening(fd);
    const bytes = from.subarray(at, at + length);
    if (node.kind === 'fifo') {
      if (bytes.length > node.room) throw AGAIN;
      node.bytes = Buffer.concat([node.bytes, bytes]);
      return length;
    }
    const file = this.#fileOf(fd);
    const to = position ?? file.sizeBytes;
    if (to + length > file.sizeBytes) file.resize(to + length);
    bytes.copy(file.cache, to);
    return length;
  }

  fsync(fd: number): void {
    this.#life.step();
    const { node, path } = this.#opening(fd);
    if (node.kind === 'file') {
      const since = this.#machine.moment();
      const errno = this.#machine.sync(path, node.file, 0, node.file.pages);
      if (errno !== 0) throw failure('EIO', path);
      this.#machine.onSynced(node.file, since);
    } else this.#machine.syncNames(path);
  }

  /** Of the pages that were dirty at its start some are written early and some late; later ones not at all. */
  fdatasync(fd: number): Promise<void> {
    this.#life.step();
    const { path } = this.#opening(fd);
    const file = this.#fileOf(fd);
    const since = this.#machine.moment();
    const dirty = file.dirtyPages();
    const pick = picks(since);
    const late = dirty.filter((page) => {
      if (pick(2) === 0) return true;
      file.writeBack(page);
      return false;
    });
    return new Promise((resolve, reject) => {
      this.#io.push(() => {
        this.#life.step();
        if (this.#machine.syncFails(path, file, late)) {
          reject(failure('EIO', path));
          return;
        }
        for (const page of late) if (file.isDirty(page)) file.writeBack(page);
        this.#machine.flush(file.drive);
        this.#machine.onSynced(file, since);
        this.#machine.tell(`${this.#name} has synced ${named(path)}`);
        resolve();
      });
    });
  }

  sizeBytes(fd: number): number {
    return this.#fileOf(fd).sizeBytes;
  }

  exists(path: string): boolean {
    this.#life.step();
    return this.#machine.names.has(path);
  }

  isFifo(path: string): boolean {
    return this.#machine.names.get(path)?.kind === 'fifo';
  }

  rename(from: string, to: string): void {
    this.#life.step();
    this.#machine.name({ change: 'rename', from, to });
  }

  remove(path: string): void {
    this.#life.step();
    this.#machine.name({ change: 'remove', path });
  }

  makeDirectory(path: string): void {
    this.#add(path, { kind: 'directory' });
  }

  list(directory: string): string[] {
    this.#life.step();
    const start = `${directory}/`;
    return [...this.#machine.names.keys()]
      .filter((path) => path.startsWith(start))
      .map((path) => path.slice(start.length));
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
    this.#life.step();
    this.#machine.name({ change: 'add', path, node });
  }

  map(fd: number, offset: number, length: number): Buffer {
    this.#life.step();
    const { path } = this.#opening(fd);
    const file = this.#fileOf(fd);
    if (offset !== 0) throw failure('EINVAL', path);
    this.#mapped.set(file.cache.buffer, { path, file });
    return stepped(file.cache.subarray(0, length), this.#life);
  }

  willNeed(): void {}

  msync(map: Buffer, offset: number, length: number, wait: boolean): number {
    this.#life.step();
    if (!wait) return 0;
    const { path, file, from } = this.#placeOf(map, offset);
    return this.#machine.sync(path, file, from, Math.ceil((offset + length) / PAGE_BYTES));
  }

  touch(map: Buffer, at: number): void {
    this.#life.step();
    const { file, from } = this.#placeOf(map, at);
    file.touch(from);
  }

  #placeOf(map: Buffer, offset: number): { path: string; file: SimFile; from: number } {
    const place = this.#mapped.get(map.buffer);
    if (!place) throw failure('EINVAL', 'not a mapping');
    return { ...place, from: Math.floor(offset / PAGE_BYTES) };
  }

  /** Never waits: no simulated process is ever stopped while it holds a lock that another one waits for. */
  fcntlLock(fd: number, command: number, flock: Buffer): number {
    this.#life.step();
    const opening = this.#opening(fd);
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
    this.#life.step();
    let ready = 0;
    for (let index = 0; index < count; index += 1) {
      const { node } = this.#opening(fds.readInt32LE(8 * index));
      const readable = node.kind === 'fifo' && node.bytes.length > 0;
      fds.writeInt16LE(readable ? POLLIN : 0, 8 * index + 6);
      if (readable) ready += 1;
    }
    if (ready === 0) this.#machine.nowMs += POLL_MS;
    return ready;
  }

  /** Nobody else runs while a process looks: what it finds is there already. */
  pollAwake(fds: Buffer, count: number): number {
    return this.poll(fds, count);
  }

  onArrival(fd: number, _mostBytes: number, callback: (bytes: Buffer) => void): Registered {
    this.#life.step();
    const { node, path } = this.#opening(fd);
    if (node.kind !== 'fifo') throw failure('EINVAL', path);
    const arrival = { fd, fifo: node, callback };
    this.#arrivals.add(arrival);
    return {
      close: () => {
        this.#arrivals.delete(arrival);
        this.close(fd);
      },
    };
  }

  every(intervalMs: number, callback: () => unknown): Registered {
    const timer = { intervalMs, dueMs: this.#machine.nowMs + intervalMs, callback };
    this.#timers.add(timer);
    return { close: () => void this.#timers.delete(timer) };
  }

  soon(callback: () => unknown): void {
    this.#life.step();
    this.#soon.push(callback);
  }

  monotonicMs(): number {
    return this.#machine.nowMs;
  }

  dateMs(): number {
    return Math.floor(this.#machine.nowMs + this.#machine.dateOffsetMs);
  }

  randomBytes(count: number): Buffer {
    const pick = picks(count);
    return Buffer.from(Array.from({ length: count }, () => pick(256)));
  }

  say(): void {}
}

const failure = (code: string, what: string): Error =>
  Object.assign(new Error(`${code}: ${what}`), { code, syscall: 'simulated' });

/** Thrown for every empty and every full FIFO: made once, because a stack costs more than all the rest of the call. */
const AGAIN = failure('EAGAIN', 'FIFO');

import { randomBytes } from 'node:crypto';
import {
  closeSync,
  constants,
  existsSync,
  fdatasync,
  fdatasyncSync,
  fstatSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { Socket } from 'node:net';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { assert, QueueError } from './errors.js';
import { DIRECTORY_MODE, type Kernel, type Registration } from './kernel.js';
import {
  errno,
  fcntlLock,
  isMapFailed,
  madvise,
  mkfifo,
  mmapWide,
  msyncWide,
  munmapWide,
  poll,
  viewAt,
} from './native.js';
import { visible } from './visible.js';

const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;
const MADV_RANDOM = 1;
const MADV_WILLNEED = 3;
const MS_ASYNC = 1;
const MS_SYNC = 4;
const INT32_MAX = 2 ** 31 - 1;

type SyncMapped = (
  buffer: Buffer,
  offset: number,
  length: number,
  blocking: boolean,
  invalidate: boolean,
) => void;

/**
 * The part of the mmap-io library that the queue uses. The library's own types do not say what the blocking
 * flag means.
 */
interface MmapIo {
  map(size: number, protection: number, flags: number, fd: number, offset: number, advice: number): Buffer;
  advise(buffer: Buffer, offset: number, length: number, advice: number): void;
  sync: SyncMapped;
}

/** The compiled addon of mmap-io, without the library's JavaScript around it. */
type MmapAddon = Omit<MmapIo, 'sync'> & { sync_lib_private__: SyncMapped };

/**
 * The mmap-io library, or undefined when it could not be loaded. It is compiled on the user's machine. On a
 * machine without a compiler the same calls go through koffi, which is shipped as a binary. Both map the same
 * pages, and a process may use either.
 */
const mmapIo: MmapIo | undefined = (() => {
  const load = createRequire(import.meta.url);
  try {
    return loadAddon(load) ?? (load('mmap-io') as MmapIo);
  } catch {
    return undefined;
  }
})();

/**
 * Loads the compiled addon directly from the path where a build puts it. The library itself would look for it
 * with an addon installer, which loads a network client and an archiver. The search takes a third of the
 * start-up time of a process.
 *
 * @returns undefined when the addon is not at that path.
 */
function loadAddon(load: NodeJS.Require): MmapIo | undefined {
  const { versions, platform, arch } = process;
  const build = `build/binding/Release/node-v${versions.modules}-${platform}-${arch}/mmap_io.node`;
  try {
    const addon = load(join(dirname(load.resolve('mmap-io/package.json')), build)) as MmapAddon;
    return { map: addon.map, advise: addon.advise, sync: addon.sync_lib_private__ };
  } catch {
    return undefined;
  }
}

/** The library that maps files on this machine, for `doctor` and bug reports. */
export const mapLibrary: 'mmap-io' | 'koffi' = mmapIo ? 'mmap-io' : 'koffi';

/**
 * Maps part of a file. MADV_RANDOM is set before the first access: with read-ahead the page cache would hold
 * large folios, one store would dirty a whole folio, and every msync would write up to 1 MiB.
 */
function map(fd: number, offset: number, length: number): Buffer {
  if (mmapIo && offset <= INT32_MAX && length <= INT32_MAX) {
    try {
      return mmapIo.map(length, PROT_READ_WRITE, MAP_SHARED, fd, offset, MADV_RANDOM);
    } catch (cause) {
      throw new QueueError('unsupported', `cannot map ${length} bytes: ${(cause as Error).message}`, {
        cause,
      });
    }
  }
  return mapAtPointer(fd, offset, length).bytes;
}

function mapAtPointer(fd: number, offset: number, length: number): { pointer: unknown; bytes: Buffer } {
  const pointer = mmapWide(null, length, PROT_READ_WRITE, MAP_SHARED, fd, offset);
  if (isMapFailed(pointer)) {
    throw new QueueError('unsupported', `cannot map ${length} bytes at ${offset}: errno ${errno()}`);
  }
  madvise(pointer, length, MADV_RANDOM);
  return { pointer, bytes: Buffer.from(viewAt(pointer, length)) };
}

function willNeed(bytes: Buffer, offset: number, length: number): void {
  if (!mmapIo) {
    madvise(bytes.subarray(offset, offset + length), length, MADV_WILLNEED);
    return;
  }
  try {
    mmapIo.advise(bytes, offset, length, MADV_WILLNEED);
  } catch {
    // Ignore the failure: the hint affects only the speed.
  }
}

/**
 * Calls msync(2). Every argument is spelled out, because mmap-io's defaults mean MS_ASYNC, which does not
 * wait until the pages are on the disk.
 *
 * @returns 0, or the errno of the failure.
 */
function msync(bytes: Buffer, offset: number, length: number, wait: boolean): number {
  if (!mmapIo) {
    const part = bytes.subarray(offset, offset + length);
    return msyncWide(part, length, wait ? MS_SYNC : MS_ASYNC) === 0 ? 0 : errno();
  }
  try {
    mmapIo.sync(bytes, offset, length, wait, false);
    return 0;
  } catch (error) {
    // The library's errors carry the errno only at the end of their text: "msync() failed, 5".
    const text = /(\d+)$/.exec((error as Error).message);
    return text ? Number(text[1]) : 5;
  }
}

/**
 * Calls back with the bytes that arrive in a FIFO. They are read into one reused buffer, because a stream's
 * buffers and events cost as much as the rest of a sync round.
 */
function onFifoData(fd: number, maxBytes: number, callback: (bytes: Buffer) => void): Registration {
  const onread = {
    buffer: Buffer.alloc(maxBytes),
    callback: (length: number, bytes: Uint8Array): boolean => {
      callback(Buffer.from(bytes.buffer, bytes.byteOffset, length));
      return true;
    },
  };
  const options = { fd, readable: true, writable: false, onread };
  const socket = new Socket(options);
  // Ignore errors: a FIFO that is open for reading and writing does not break. If it does, waiting requests
  // time out.
  socket.on('error', () => undefined);
  return { close: () => socket.destroy() };
}

function every(intervalMs: number, callback: () => unknown): Registration {
  const timer = setInterval(callback, intervalMs);
  timer.unref();
  return { close: () => clearInterval(timer) };
}

/** Polls in a loop that never sleeps, for at most `timeoutMs`. */
function busyPoll(fds: Buffer, count: number, timeoutMs: number): number {
  const endMs = performance.now() + timeoutMs;
  for (;;) {
    const ready = poll(fds, count, 0);
    if (ready > 0 || performance.now() >= endMs) return ready;
  }
}

const OPEN_FLAGS: Readonly<Record<string, number>> = {
  r: constants.O_RDONLY,
  'r+': constants.O_RDWR,
  w: constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC,
};

/**
 * Opens a file of the queue. Something else in its place is refused: the read of a FIFO or of a device may never
 * return, and this process would not react to any signal meanwhile.
 * @param flags with O_NONBLOCK a FIFO is expected, with O_DIRECTORY a directory, otherwise a regular file.
 * @throws QueueError `not-a-queue` that names what was found.
 */
function open(path: string, flags: string | number, mode?: number): number {
  const bits = typeof flags === 'number' ? flags : OPEN_FLAGS[flags];
  assert(bits !== undefined, 'files are opened with flags that are known');
  const wrong = (found: string, cause?: unknown) =>
    new QueueError('not-a-queue', `${path}: found ${found}, expected a ${expected}`, { cause });
  const expected =
    bits & constants.O_NONBLOCK ? 'FIFO' : bits & constants.O_DIRECTORY ? 'directory' : 'regular file';
  let fd: number;
  try {
    // Without O_NONBLOCK the open of a FIFO itself waits for a process on its other side.
    fd = openSync(path, bits | constants.O_NONBLOCK, mode);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EISDIR') throw wrong('a directory', error);
    if (code === 'ENXIO') throw wrong('a socket, a device or a FIFO that no process reads', error);
    throw error;
  }
  const stat = fstatSync(fd);
  const found = stat.isFile()
    ? 'regular file'
    : stat.isDirectory()
      ? 'directory'
      : stat.isFIFO()
        ? 'FIFO'
        : 'device';
  if (found === expected) return fd;
  closeSync(fd);
  throw wrong(`a ${found}`);
}

/**
 * Reads a text file that a person named or a queue contains.
 * @throws QueueError `not-a-queue` when it is not a regular file; the errors of node:fs.
 */
export function readTextFile(path: string): string {
  const fd = open(path, 'r');
  try {
    return readFileSync(fd, 'utf8');
  } finally {
    closeSync(fd);
  }
}

const syncWithoutBlocking = promisify(fdatasync);

/** The kernel of the machine that this process runs on. */
export const linux: Kernel = {
  open,
  close: closeSync,
  read: readSync,
  write: writeSync,
  fsync: fsyncSync,
  fdatasync: async (fd, isBlocking = false) => {
    if (isBlocking) fdatasyncSync(fd);
    else await syncWithoutBlocking(fd);
  },
  sizeBytes: (fd) => fstatSync(fd).size,
  exists: existsSync,
  isFifo: (path) => lstatSync(path).isFIFO(),
  rename: renameSync,
  remove: (path) => rmSync(path, { force: true }),
  makeDirectory: (path) => void mkdirSync(path, DIRECTORY_MODE),
  list: (directory) => readdirSync(directory),
  makeFifo: mkfifo,
  map,
  willNeed,
  msync,
  markDirty: (bytes, at) => {
    // Use an atomic "or 0": a plain read and write could overwrite a concurrent store of another process.
    Atomics.or(new Int32Array(bytes.buffer, bytes.byteOffset + at, 1), 0, 0);
  },
  fcntlLock,
  errno,
  poll,
  busyPoll,
  onFifoData,
  every,
  after: (delayMs, callback) => void setTimeout(callback, delayMs),
  defer: (callback) => void setImmediate(callback),
  monotonicMs: () => performance.now(),
  wallClockMs: () => Date.now(),
  randomBytes,
  log: (line) => void process.stderr.write(`${visible(line)}\n`),
};

/**
 * Runs `use` with a kernel whose mappings are removed when it returns, for a process that opens many queues
 * one after the other. The caller must not access a mapped buffer afterwards: that would kill the process.
 */
export function withTemporaryMaps<T>(use: (kernel: Kernel) => T): T {
  const made: { pointer: unknown; length: number }[] = [];
  const map = (fd: number, offset: number, length: number): Buffer => {
    const { pointer, bytes } = mapAtPointer(fd, offset, length);
    made.push({ pointer, length });
    return bytes;
  };
  try {
    return use({ ...linux, map });
  } finally {
    for (const { pointer, length } of made) munmapWide(pointer, length);
  }
}

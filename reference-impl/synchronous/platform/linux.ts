import { randomBytes } from 'node:crypto';
import {
  closeSync,
  existsSync,
  fdatasync,
  fstatSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { Socket } from 'node:net';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { QueueError } from './errors.js';
import type { Kernel, Registration } from './kernel.js';
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

/** What of mmap-io is used; its own types leave out the blocking flag's meaning. */
interface MmapIo {
  map(size: number, protection: number, flags: number, fd: number, offset: number, advice: number): Buffer;
  advise(buffer: Buffer, offset: number, length: number, advice: number): void;
  sync: SyncMapped;
}

/** The same without the library's own JavaScript around it. */
type MmapAddon = Omit<MmapIo, 'sync'> & { sync_lib_private__: SyncMapped };

/**
 * mmap-io is compiled on the user's machine; where there is no compiler the same calls go through koffi, which
 * comes as a binary. Both map the same pages, and a process may use either.
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
 * The compiled addon where a build puts it. The library finds it with an installer of addons that loads a network client
 * and an archiver: a third of all the time that a start takes.
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

/** Which library maps files on this machine, for `doctor` and bug reports. */
export const mapLibrary: 'mmap-io' | 'koffi' = mmapIo ? 'mmap-io' : 'koffi';

/**
 * MADV_RANDOM is set before first touch: with read-ahead the page cache holds large folios, one store dirties
 * all of one, and every msync writes up to 1 MiB.
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
    // Only speed depends on it.
  }
}

/** Every argument is spelled out because mmap-io's defaults mean MS_ASYNC, which leaves nothing on the disk. */
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

/** Read into one buffer of ours: a stream's buffers and events cost as much as the rest of a round. */
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
  // A FIFO of ours does not break; if it does, the time-outs of whoever waits end the wait.
  socket.on('error', () => undefined);
  return { close: () => socket.destroy() };
}

function every(intervalMs: number, callback: () => unknown): Registration {
  const timer = setInterval(callback, intervalMs);
  timer.unref();
  return { close: () => clearInterval(timer) };
}

function busyPoll(fds: Buffer, count: number, timeoutMs: number): number {
  const endMs = performance.now() + timeoutMs;
  for (;;) {
    const ready = poll(fds, count, 0);
    if (ready > 0 || performance.now() >= endMs) return ready;
  }
}

/** The machine that this process runs on. */
export const linux: Kernel = {
  open: openSync,
  close: closeSync,
  read: readSync,
  write: writeSync,
  fsync: fsyncSync,
  fdatasync: promisify(fdatasync),
  sizeBytes: (fd) => fstatSync(fd).size,
  exists: existsSync,
  isFifo: (path) => lstatSync(path).isFIFO(),
  rename: renameSync,
  remove: (path) => rmSync(path, { force: true }),
  makeDirectory: (path) => void mkdirSync(path),
  list: (directory) => readdirSync(directory),
  makeFifo: mkfifo,
  map,
  willNeed,
  msync,
  markDirty: (bytes, at) => {
    // An atomic "or 0": another process may be storing into the same word.
    Atomics.or(new Int32Array(bytes.buffer, bytes.byteOffset + at, 1), 0, 0);
  },
  fcntlLock,
  errno,
  poll,
  busyPoll,
  onFifoData,
  every,
  defer: (callback) => void setImmediate(callback),
  monotonicMs: () => performance.now(),
  wallClockMs: () => Date.now(),
  randomBytes,
  log: (line) => void process.stderr.write(`${line}\n`),
};

/**
 * Runs `use` on this machine and undoes every mapping that was made in it, for a process that opens one queue after the
 * other. Nothing of what was mapped may be touched afterwards: that would kill the process.
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

import { join } from 'node:path';
import { type Call, descriptorOf, parseStraceLog, quotedPath } from './strace-log.js';

/** A range of bytes in a file, or of addresses; `end` is not part of it. */
export interface ByteRange {
  start: number;
  end: number;
}

/** A successful sync: data that was in the range when the sync began is on the disk. */
export interface SyncEvent extends ByteRange {
  kind: 'sync';
  /** Number of the line of the strace log on which the call begins. */
  entry: number;
  /**
   * Offset in the strace log, in bytes, of the end of the line on which the call returned; Infinity when the
   * call did not return.
   */
  doneOffset: number;
}

/** A failed sync: the kernel may treat its cached pages of the range as written, and drop them. */
export interface FailedSyncEvent extends ByteRange {
  kind: 'failed-sync';
  entry: number;
  doneOffset: number;
}

/**
 * A write of `length` bytes. `start` is its offset in the file, `append` if the kernel wrote at the end of
 * the file, `unknown` if the log does not show the offset, or `truncate` if the size of the file was set to
 * `length`.
 */
export interface WriteEvent {
  kind: 'write';
  start: number | 'append' | 'truncate' | 'unknown';
  length: number;
  entry: number;
  doneOffset: number;
}

/** The writes and syncs of one file that a strace log shows. The file keeps them when it is renamed. */
export interface FileTrace {
  events: (SyncEvent | FailedSyncEvent | WriteEvent)[];
  /**
   * True when a process had mapped the file as shared, so that its bytes can change without a system call.
   */
  mapped: boolean;
}

/** The writes and syncs that the strace log of one service shows. */
export interface Trace {
  /** Traces by the absolute path that the file has at the end of the log. */
  files: ReadonlyMap<string, FileTrace>;
  /** Reason why the log allows no conclusion; empty when it allows one. */
  inconclusiveReason: string;
}

const PAGE_BYTES = 4096;
const WHOLE_FILE: ByteRange = { start: 0, end: Number.POSITIVE_INFINITY };

/** A range of addresses of a process that maps a part of a file. */
interface Mapping extends ByteRange {
  file: FileTrace;
  fileOffset: number;
}

/** An open file. Duplicated and inherited descriptors share it. */
interface OpenFile {
  file: FileTrace;
  append: boolean;
  sync: boolean;
  /** Offset of the next write; undefined when reads may have changed it, because reads are not traced. */
  position: number | undefined;
}

/** The mappings and descriptors of a process. Its threads share both; a child process gets copies. */
interface Process {
  mappings: { list: Mapping[] };
  descriptors: Map<number, OpenFile>;
}

type Handler = (reader: TraceReader, call: Call, process: Process) => void;

/** Replays the calls of every process in a log, and returns the writes and syncs of each file. */
export function readTrace(log: string): Trace {
  return new TraceReader(parseStraceLog(log)).read();
}

class TraceReader {
  /** The effect of each call on the replayed state. A call that is not listed here is not traced. */
  static readonly handlers: Readonly<Record<string, Handler>> = {
    mmap: (reader, call, process) => reader.#mmap(call, process),
    munmap: (_, call, process) => unmap(process, Number(call.args[0]), Number(call.args[1])),
    mremap: (reader, call, process) => reader.#mremap(call, process),
    msync: (reader, call, process) => reader.#msync(call, process),
    fsync: (reader, call) => reader.#sync(reader.#fileAt(call.args[0]), WHOLE_FILE, call),
    fdatasync: (reader, call) => reader.#sync(reader.#fileAt(call.args[0]), WHOLE_FILE, call),
    sync_file_range: (reader, call) => reader.#syncFileRange(call),
    sync: (reader, call) => reader.#syncAll(call),
    syncfs: (reader, call) => reader.#syncAll(call),
    open: (reader, call, process) => reader.#open(call, process),
    openat: (reader, call, process) => reader.#open(call, process),
    openat2: (reader, call, process) => reader.#open(call, process),
    creat: (reader, call, process) => reader.#open(call, process),
    close: (_, call, process) => void process.descriptors.delete(descriptorNumber(call)),
    dup: (_, call, process) => duplicate(call, process),
    dup2: (_, call, process) => duplicate(call, process),
    dup3: (_, call, process) => duplicate(call, process),
    lseek: (_, call, process) => seek(call, process),
    write: (reader, call, process) => reader.#write(call, process),
    writev: (reader, call, process) => reader.#write(call, process),
    pwrite64: (reader, call, process) => reader.#write(call, process),
    pwritev: (reader, call, process) => reader.#write(call, process),
    pwritev2: (reader, call, process) => reader.#write(call, process),
    ftruncate: (reader, call) => reader.#truncate(reader.#fileAt(call.args[0]), call),
    fallocate: (reader, call) => reader.#unknownWrite(reader.#fileAt(call.args[0]), call),
    truncate: (reader, call) => reader.#truncate(reader.#files.get(quotedPath(call.args[0]) ?? ''), call),
    copy_file_range: (reader, call) => reader.#unknownWrite(reader.#fileAt(call.args[2]), call),
    splice: (reader, call) => reader.#unknownWrite(reader.#fileAt(call.args[2]), call),
    sendfile: (reader, call) => reader.#unknownWrite(reader.#fileAt(call.args[0]), call),
    rename: (reader, call) => reader.#move(call, absolutePath(call, 0), absolutePath(call, 1)),
    renameat: (reader, call) => reader.#move(call, absolutePath(call, 1, 0), absolutePath(call, 3, 2)),
    renameat2: (reader, call) => reader.#move(call, absolutePath(call, 1, 0), absolutePath(call, 3, 2)),
    link: (reader, call) => reader.#move(call, absolutePath(call, 0), absolutePath(call, 1)),
    linkat: (reader, call) => reader.#move(call, absolutePath(call, 1, 0), absolutePath(call, 3, 2)),
    unlink: (reader, call) => reader.#unlink(call, absolutePath(call, 0)),
    unlinkat: (reader, call) => reader.#unlink(call, absolutePath(call, 1, 0)),
    execve: (_, call, process) => {
      if (call.result !== undefined) process.mappings = { list: [] };
    },
    io_uring_setup: (reader, call) => reader.#markUntraceable(call),
    io_submit: (reader, call) => reader.#markUntraceable(call),
    clone: () => {},
    clone3: () => {},
    fork: () => {},
    vfork: () => {},
  };
  readonly #calls: Call[];
  readonly #files = new Map<string, FileTrace>();
  readonly #processes = new Map<number, Process>();
  readonly #parents = new Map<number, Call>();
  #inconclusiveReason = '';

  constructor(calls: Call[]) {
    this.#calls = calls;
  }

  read(): Trace {
    for (const call of this.#calls) {
      if (!isClone(call.name) || call.result === undefined) continue;
      const child = Number.parseInt(call.result, 10);
      if (child > 0) this.#parents.set(child, call);
    }
    for (const call of this.#calls) this.#applyCall(call, this.#processOf(call));
    return { files: this.#files, inconclusiveReason: this.#inconclusiveReason };
  }

  /** Returns the process of a thread. A child may appear in the log before the call of its parent returns. */
  #processOf(call: Call): Process {
    const known = this.#processes.get(call.thread);
    if (known) return known;
    const cloneCall = this.#parents.get(call.thread) ?? this.#unfinishedClone(call);
    const parent = cloneCall && this.#processes.get(cloneCall.thread);
    const flags = cloneCall?.args.join(',') ?? '';
    const made: Process = {
      mappings:
        parent && flags.includes('CLONE_VM') ? parent.mappings : { list: [...(parent?.mappings.list ?? [])] },
      descriptors:
        parent && flags.includes('CLONE_FILES') ? parent.descriptors : new Map(parent?.descriptors ?? []),
    };
    this.#processes.set(call.thread, made);
    return made;
  }

  /**
   * Finds the clone call whose return is missing in the log, because everything was killed before it
   * returned.
   */
  #unfinishedClone(call: Call): Call | undefined {
    const open = this.#calls.filter(
      (one) => isClone(one.name) && one.result === undefined && one.entry < call.entry,
    );
    if (open.length > 1) this.#inconclusiveReason = 'two processes were being made at the kill';
    return open[0];
  }

  #applyCall(call: Call, process: Process): void {
    if (call.result?.startsWith('-1') === true) {
      if (call.name === 'fsync' || call.name === 'fdatasync') this.#syncFailed(call);
      return;
    }
    if (call.result?.startsWith('?') === true) return;
    TraceReader.handlers[call.name]?.(this, call, process);
  }

  #file(path: string): FileTrace {
    const known = this.#files.get(path);
    if (known) return known;
    const made: FileTrace = { events: [], mapped: false };
    this.#files.set(path, made);
    return made;
  }

  #fileAt(argument: string | undefined): FileTrace | undefined {
    const descriptor = descriptorOf(argument);
    return descriptor?.path.startsWith('/') ? this.#file(descriptor.path) : undefined;
  }

  #syncAll(call: Call): void {
    for (const file of this.#files.values()) this.#sync(file, WHOLE_FILE, call);
  }

  #sync(file: FileTrace | undefined, { start, end }: ByteRange, call: Call): void {
    if (call.result === undefined) return;
    file?.events.push({ kind: 'sync', start, end, entry: call.entry, doneOffset: call.doneOffset });
  }

  #syncFailed({ args, entry, doneOffset }: Call): void {
    this.#fileAt(args[0])?.events.push({ kind: 'failed-sync', ...WHOLE_FILE, entry, doneOffset });
  }

  #mmap(call: Call, process: Process): void {
    const [, length, , flags = '', descriptor, offset] = call.args;
    const start = Number(call.result?.split(' ')[0]);
    if (!Number.isFinite(start)) return;
    unmap(process, start, Number(length));
    const file = this.#fileAt(descriptor);
    if (file === undefined || !flags.includes('MAP_SHARED')) return;
    // A read-only mapping counts as well: mprotect can make it writable later, and mprotect is not traced.
    file.mapped = true;
    const end = start + wholePages(Number(length));
    process.mappings.list.push({ start, end, file, fileOffset: Number(offset) });
  }

  #mremap(call: Call, process: Process): void {
    const [oldStart, oldLength, newLength] = call.args.map(Number);
    const newStart = Number(call.result);
    if (oldStart === undefined || oldLength === undefined || newLength === undefined) return;
    const moved = process.mappings.list.find(({ start, end }) => start <= oldStart && oldStart < end);
    unmap(process, oldStart, oldLength);
    unmap(process, newStart, newLength);
    if (moved === undefined) return;
    const fileOffset = moved.fileOffset + (oldStart - moved.start);
    process.mappings.list.push({
      file: moved.file,
      fileOffset,
      start: newStart,
      end: newStart + wholePages(newLength),
    });
  }

  #msync(call: Call, process: Process): void {
    if (call.args[2]?.includes('MS_SYNC') !== true) return;
    const start = Number(call.args[0]);
    const end = start + wholePages(Number(call.args[1]));
    for (const mapping of process.mappings.list) {
      const from = Math.max(start, mapping.start);
      const to = Math.min(end, mapping.end);
      if (from >= to) continue;
      const offset = mapping.fileOffset - mapping.start;
      this.#sync(mapping.file, { start: from + offset, end: to + offset }, call);
    }
  }

  /**
   * Replays sync_file_range(2). The call counts as a sync although it promises less than fsync: a program
   * that waits for the write intends a sync.
   */
  #syncFileRange(call: Call): void {
    if (call.args[3]?.includes('SYNC_FILE_RANGE_WAIT_AFTER') !== true) return;
    const start = Number(call.args[1]);
    const length = Number(call.args[2]);
    const end = length === 0 ? Number.POSITIVE_INFINITY : start + length;
    this.#sync(this.#fileAt(call.args[0]), { start, end }, call);
  }

  #open(call: Call, process: Process): void {
    const descriptor = descriptorOf(call.result);
    if (!descriptor?.path.startsWith('/')) return;
    const flags = call.name === 'creat' ? 'O_WRONLY|O_TRUNC' : call.args.join(',');
    const file = this.#file(descriptor.path);
    if (flags.includes('O_TRUNC')) this.#unknownWrite(file, call);
    process.descriptors.set(descriptor.fd, {
      file,
      append: flags.includes('O_APPEND'),
      sync: flags.includes('O_SYNC') || flags.includes('O_DSYNC'),
      position: flags.includes('O_WRONLY') ? 0 : undefined,
    });
  }

  #write(call: Call, process: Process): void {
    const descriptor = descriptorOf(call.args[0]);
    if (!descriptor?.path.startsWith('/')) return;
    const file = this.#file(descriptor.path);
    const known = process.descriptors.get(descriptor.fd);
    const open = known?.file === file ? known : undefined;
    const { entry, doneOffset } = call;
    const length = call.result === undefined ? requestedLength(call) : Number.parseInt(call.result, 10);
    let start: WriteEvent['start'];
    if (call.name.startsWith('pwrite')) start = Number(call.args[3]);
    else if (open?.append) start = 'append';
    else start = open?.position ?? 'unknown';
    if (open?.append === true && start !== 'append') start = 'append';
    if (open?.position !== undefined && !call.name.startsWith('pwrite')) open.position += length;
    if (!Number.isFinite(length)) start = 'unknown';
    file.events.push({ kind: 'write', start, length, entry, doneOffset });
    // If the opening of a descriptor was not traced, it may have O_SYNC. Count the write as a sync, in favour
    // of the target.
    const synced = open === undefined || open.sync || call.args[4]?.includes('SYNC') === true;
    if (synced) {
      const range = typeof start === 'number' ? { start, end: start + length } : WHOLE_FILE;
      this.#sync(file, range, call);
    }
  }

  #unknownWrite(file: FileTrace | undefined, { entry, doneOffset }: Call): void {
    file?.events.push({ kind: 'write', start: 'unknown', length: 0, entry, doneOffset });
  }

  #truncate(file: FileTrace | undefined, call: Call): void {
    const length = Number(call.args[1]);
    if (call.result !== '0' || !Number.isSafeInteger(length)) this.#unknownWrite(file, call);
    else
      file?.events.push({
        kind: 'write',
        start: 'truncate',
        length,
        entry: call.entry,
        doneOffset: call.doneOffset,
      });
  }

  #move(call: Call, before: string | undefined, after: string | undefined): void {
    if (before === undefined || after === undefined) {
      this.#inconclusiveReason ||= 'a file was renamed by a relative path';
      return;
    }
    for (const [name, file] of [...this.#files]) {
      if (name !== before && !name.startsWith(`${before}/`)) continue;
      const moved = after + name.slice(before.length);
      // A sync under the new name can appear in the log before the line on which the rename returns.
      const early = this.#files.get(moved)?.events.filter((event) => event.entry > call.entry) ?? [];
      this.#files.set(moved, file);
      file.events.push(...early);
      if (!call.name.startsWith('link')) this.#files.delete(name);
    }
  }

  #unlink(call: Call, file: string | undefined): void {
    if (file !== undefined && call.result !== undefined) this.#files.delete(file);
  }

  #markUntraceable(call: Call): void {
    if (call.result !== undefined)
      this.#inconclusiveReason = `the target writes through ${call.name}, which a trace does not show`;
  }
}

/** The calls that a trace must contain for `readTrace`. */
export const TRACED_CALLS: readonly string[] = Object.keys(TraceReader.handlers);

/**
 * Returns the path in one argument as an absolute path, resolved against the folder in another argument.
 * @returns undefined when the path is relative and its folder is not known.
 */
function absolutePath(call: Call, at: number, folderAt?: number): string | undefined {
  const name = quotedPath(call.args[at]);
  if (name === undefined || name.startsWith('/')) return name;
  const base = folderAt === undefined ? undefined : descriptorOf(call.args[folderAt])?.path;
  return base === undefined ? undefined : join(base, name);
}

function descriptorNumber(call: Call): number {
  return Number.parseInt(call.args[0] ?? '', 10);
}

function isClone(name: string): boolean {
  return ['clone', 'clone3', 'fork', 'vfork'].includes(name);
}

function wholePages(length: number): number {
  return Math.ceil(length / PAGE_BYTES) * PAGE_BYTES;
}

function requestedLength(call: Call): number {
  return call.name === 'write' || call.name === 'pwrite64' ? Number(call.args[2]) : Number.NaN;
}

function unmap({ mappings }: Process, start: number, length: number): void {
  const end = start + wholePages(length);
  mappings.list = mappings.list.flatMap((mapping) => {
    if (mapping.end <= start || mapping.start >= end) return [mapping];
    const parts: Mapping[] = [];
    if (mapping.start < start) parts.push({ ...mapping, end: start });
    if (mapping.end > end) {
      parts.push({ ...mapping, start: end, fileOffset: mapping.fileOffset + (end - mapping.start) });
    }
    return parts;
  });
}

function duplicate(call: Call, process: Process): void {
  const from = process.descriptors.get(descriptorNumber(call));
  const to = Number.parseInt(call.result ?? '', 10);
  if (from) process.descriptors.set(to, from);
  else process.descriptors.delete(to);
}

function seek(call: Call, process: Process): void {
  const open = process.descriptors.get(descriptorNumber(call));
  if (open?.position !== undefined && call.result !== undefined)
    open.position = Number.parseInt(call.result, 10);
}

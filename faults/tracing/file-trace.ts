import { basename, dirname, join, resolve } from 'node:path';
import { StartContent, type StartUse } from './start-content.js';
import { type Call, descriptorOf, parseStraceLog, quotedPath } from './strace-log.js';
import { type ByteRange, descriptorNumber, type OpenFile, TracedProcess } from './traced-process.js';

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
  /** Syncs of all files, by sync(2) or syncfs(2). They also cover files that are missing in `files`. */
  syncsOfAll: readonly (SyncEvent | FailedSyncEvent)[];
  /** What became of the content that a file had at the start, by its absolute path. Other files were not used. */
  startUses: ReadonlyMap<string, StartUse>;
  /** Reason why the log allows no conclusion; empty when it allows one. */
  inconclusiveReason: string;
}

const WHOLE_FILE: ByteRange = { start: 0, end: Number.POSITIVE_INFINITY };

/** The trace of a file, with facts about its descriptors that only the replay needs. */
interface ReplayedFile extends FileTrace {
  /** Path at the start of the log; undefined when the file is known to be newer. */
  startPath: string | undefined;
  /** The ways in which it was opened for writing. */
  opened: { plain: boolean; sync: boolean };
  /** True when a descriptor that the log did not show was used: it may share the position of any other descriptor. */
  positionsUnknown: boolean;
  /** Its open files whose position is known only while it is the end of the file. */
  atEnd: Set<OpenFile<ReplayedFile>>;
}

type Process = TracedProcess<ReplayedFile>;

type Handler = (reader: TraceReader, call: Call, process: Process) => void;

/**
 * Replays the calls of every process in a log, and returns the writes and syncs of each file.
 * @param realPath resolves the symbolic links in the path of a folder; undefined when it does not exist.
 */
export function readTrace(log: string, realPath: (folder: string) => string | undefined = resolve): Trace {
  return new TraceReader(parseStraceLog(log), realPath).read();
}

class TraceReader {
  /** The effect of each call on the replayed state. A call that is not listed here is not traced. */
  static readonly handlers: Readonly<Record<string, Handler>> = {
    mmap: (reader, call, process) => reader.#mmap(call, process),
    munmap: (_, call, process) => process.unmap(Number(call.args[0]), Number(call.args[1])),
    mremap: (_, call, process) => process.remap(call),
    msync: (reader, call, process) => reader.#msync(call, process),
    fsync: (reader, call, process) => reader.#sync(reader.#fileAt(call.args[0], process), WHOLE_FILE, call),
    fdatasync: (reader, call, process) =>
      reader.#sync(reader.#fileAt(call.args[0], process), WHOLE_FILE, call),
    sync: (reader, call) => reader.#syncAll('sync', call),
    syncfs: (reader, call) => reader.#syncAll('sync', call),
    open: (reader, call, process) => reader.#open(call, process),
    openat: (reader, call, process) => reader.#open(call, process),
    openat2: (reader, call, process) => reader.#open(call, process),
    creat: (reader, call, process) => reader.#open(call, process),
    close: (_, call, process) => process.close(call),
    dup: (_, call, process) => process.duplicate(call),
    dup2: (_, call, process) => process.duplicate(call),
    dup3: (_, call, process) => process.duplicate(call),
    lseek: (_, call, process) => process.seek(call),
    read: (reader, call, process) => reader.#useStart(reader.#fileAt(call.args[0], process), 'used'),
    readv: (reader, call, process) => reader.#useStart(reader.#fileAt(call.args[0], process), 'used'),
    pread64: (reader, call, process) => reader.#useStart(reader.#fileAt(call.args[0], process), 'used'),
    preadv: (reader, call, process) => reader.#useStart(reader.#fileAt(call.args[0], process), 'used'),
    preadv2: (reader, call, process) => reader.#useStart(reader.#fileAt(call.args[0], process), 'used'),
    write: (reader, call, process) => reader.#write(call, process),
    writev: (reader, call, process) => reader.#write(call, process),
    pwrite64: (reader, call, process) => reader.#write(call, process),
    pwritev: (reader, call, process) => reader.#write(call, process),
    pwritev2: (reader, call, process) => reader.#write(call, process),
    ftruncate: (reader, call, process) => reader.#truncate(reader.#fileAt(call.args[0], process), call),
    fallocate: (reader, call, process) => reader.#allocate(call, process),
    truncate: (reader, call, process) => reader.#truncatePath(call, process),
    copy_file_range: (reader, call, process) =>
      reader.#transfer(call, process, { from: 0, to: 2, offset: 3 }),
    splice: (reader, call, process) => reader.#transfer(call, process, { from: 0, to: 2, offset: 3 }),
    sendfile: (reader, call, process) => reader.#transfer(call, process, { from: 1, to: 0 }),
    ioctl: (reader, call, process) => reader.#cloneRange(call, process),
    rename: (reader, call, process) => reader.#move(call, process, [0], [1]),
    renameat: (reader, call, process) => reader.#move(call, process, [1, 0], [3, 2]),
    renameat2: (reader, call, process) => reader.#move(call, process, [1, 0], [3, 2]),
    link: (reader, call, process) => reader.#link(call, process, [0], [1]),
    linkat: (reader, call, process) => reader.#link(call, process, [1, 0], [3, 2]),
    unlink: (reader, call, process) => reader.#unlink(call, reader.#pathAt(call, process, [0])),
    unlinkat: (reader, call, process) => reader.#unlink(call, reader.#pathAt(call, process, [1, 0])),
    chdir: (reader, call, process) => process.changeFolder(reader.#folderAt(call, process)),
    fchdir: (_, call, process) => process.changeFolder(descriptorOf(call.args[0])?.path),
    chroot: (reader, call, process) => process.changeRoot(reader.#folderAt(call, process)),
    unshare: (_, call, process) => process.unshare(call),
    execve: (_, call, process) => {
      if (call.result !== undefined) process.execute();
    },
    io_uring_setup: (reader, call) => reader.#markUntraceable(call),
    io_submit: (reader, call) => reader.#markUntraceable(call),
    clone: () => {},
    clone3: () => {},
    fork: () => {},
    vfork: () => {},
  };
  readonly #calls: Call[];
  readonly #realPath: (folder: string) => string | undefined;
  readonly #files = new Map<string, ReplayedFile>();
  readonly #syncsOfAll: (SyncEvent | FailedSyncEvent)[] = [];
  readonly #startContent = new StartContent();
  readonly #processes = new Map<number, Process>();
  readonly #parents = new Map<number, Call>();
  #inconclusiveReason = '';

  constructor(calls: Call[], realPath: (folder: string) => string | undefined) {
    this.#calls = calls;
    this.#realPath = realPath;
  }

  read(): Trace {
    for (const call of this.#calls) {
      if (!isClone(call.name) || call.result === undefined) continue;
      const child = Number.parseInt(call.result, 10);
      if (child > 0) this.#parents.set(child, call);
    }
    for (const call of this.#calls) this.#applyCall(call, this.#processOf(call));
    return {
      files: this.#files,
      syncsOfAll: this.#syncsOfAll,
      startUses: this.#startContent.uses,
      inconclusiveReason: this.#inconclusiveReason,
    };
  }

  /** Returns the process of a thread. A child may appear in the log before the call of its parent returns. */
  #processOf(call: Call): Process {
    const known = this.#processes.get(call.thread);
    if (known) return known;
    const cloneCall = this.#parents.get(call.thread) ?? this.#unfinishedClone(call);
    const parent = cloneCall && this.#processes.get(cloneCall.thread);
    const made: Process = new TracedProcess(parent, cloneCall?.args.join(',') ?? '');
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
    process.learnFolder(call);
    if (call.result?.startsWith('-1') === true) {
      if (call.name === 'fsync' || call.name === 'fdatasync') this.#syncFailed(call, process);
      if (call.name === 'syncfs') this.#syncAll('failed-sync', call);
      return;
    }
    if (call.result?.startsWith('?') === true) return;
    TraceReader.handlers[call.name]?.(this, call, process);
  }

  #file(path: string): ReplayedFile {
    const known = this.#files.get(path);
    if (known) return known;
    // The path belongs to the file that had it at the start, unless that file has lost it.
    const startPath = this.#startContent.isGone(path) ? undefined : path;
    return this.#newFile(path, startPath);
  }

  #newFile(path: string, startPath: string | undefined): ReplayedFile {
    const file: ReplayedFile = {
      // A sync of all files covers also what another service has written to this file.
      events: [...this.#syncsOfAll],
      mapped: false,
      startPath,
      opened: { plain: false, sync: false },
      positionsUnknown: false,
      atEnd: new Set(),
    };
    this.#files.set(path, file);
    return file;
  }

  /** Returns the file of a descriptor; undefined when the argument is a socket, a pipe or no descriptor. */
  #fileAt(argument: string | undefined, process: Process): ReplayedFile | undefined {
    const descriptor = descriptorOf(argument);
    if (!descriptor?.path.startsWith('/')) return undefined;
    if (!descriptor.deleted) return this.#file(descriptor.path);
    // Its last path may be that of a newer file by now.
    return process.openFile(descriptor.fd)?.file ?? this.#file(deletedName(descriptor.path));
  }

  #syncAll(kind: 'sync' | 'failed-sync', call: Call): void {
    if (call.result === undefined) return;
    const event = { kind, ...WHOLE_FILE, entry: call.entry, doneOffset: call.doneOffset } as const;
    this.#syncsOfAll.push(event);
    for (const file of new Set(this.#files.values())) file.events.push(event);
  }

  #sync(file: FileTrace | undefined, { start, end }: ByteRange, call: Call): void {
    if (call.result === undefined) return;
    file?.events.push({ kind: 'sync', start, end, entry: call.entry, doneOffset: call.doneOffset });
  }

  #syncFailed({ args, entry, doneOffset }: Call, process: Process): void {
    this.#fileAt(args[0], process)?.events.push({ kind: 'failed-sync', ...WHOLE_FILE, entry, doneOffset });
  }

  #mmap(call: Call, process: Process): void {
    const [, length, , flags = '', descriptor, offset] = call.args;
    const start = Number(call.result?.split(' ')[0]);
    if (!Number.isFinite(start)) return;
    process.unmap(start, Number(length));
    const file = this.#fileAt(descriptor, process);
    this.#useStart(file, 'used');
    if (file === undefined || !flags.includes('MAP_SHARED')) return;
    // A read-only mapping counts as well: mprotect can make it writable later, and mprotect is not traced.
    file.mapped = true;
    process.map({ start, end: start + Number(length), file, fileOffset: Number(offset) });
  }

  #msync(call: Call, process: Process): void {
    if (call.args[2]?.includes('MS_SYNC') !== true) return;
    for (const { file, range } of process.mappedAt(Number(call.args[0]), Number(call.args[1])))
      this.#sync(file, range, call);
  }

  #open(call: Call, process: Process): void {
    const descriptor = descriptorOf(call.result);
    if (!descriptor?.path.startsWith('/')) return;
    const flags = call.name === 'creat' ? 'O_WRONLY|O_TRUNC' : call.args.join(',');
    // A file of O_TMPFILE has no name until it is linked.
    const file = descriptor.deleted
      ? this.#newFile(deletedName(descriptor.path), undefined)
      : this.#file(descriptor.path);
    if (flags.includes('O_TRUNC')) {
      this.#useStart(file, { keptBytes: 0, doneOffset: call.doneOffset });
      this.#unknownWrite(file, call);
    }
    const sync = flags.includes('O_SYNC') || flags.includes('O_DSYNC');
    if (/O_WRONLY|O_RDWR/.test(flags)) file.opened[sync ? 'sync' : 'plain'] = true;
    const writesOnly = flags.includes('O_WRONLY');
    const isEmpty = flags.includes('O_TRUNC') || flags.includes('O_EXCL');
    const open: OpenFile<ReplayedFile> = {
      file,
      append: flags.includes('O_APPEND'),
      sync,
      position: writesOnly || isEmpty ? 0 : undefined,
      onlyAtEnd: !writesOnly,
    };
    process.open(descriptor.fd, open);
    if (open.onlyAtEnd && open.position !== undefined) file.atEnd.add(open);
  }

  #write(call: Call, process: Process): void {
    const length = call.result === undefined ? requestedLength(call) : Number.parseInt(call.result, 10);
    // With the offset -1, pwritev2 writes at the position of the descriptor.
    const at = call.name.startsWith('pwrite') && call.args[3] !== '-1' ? Number(call.args[3]) : 'position';
    this.#writeAt(call, process, { to: 0, at, length, flags: call.args[4] ?? '' });
  }

  /** Replays a call that copies bytes to a descriptor in the kernel. */
  #transfer(
    call: Call,
    process: Process,
    { from, to, offset }: Record<'from' | 'to', number> & { offset?: number },
  ): void {
    this.#useStart(this.#fileAt(call.args[from], process), 'used');
    const length = Number.parseInt(call.result ?? '', 10);
    const given = /^\[(\d+)/.exec((offset === undefined ? undefined : call.args[offset]) ?? '')?.[1];
    this.#writeAt(call, process, {
      to,
      at: given === undefined ? 'position' : Number(given),
      length,
      flags: '',
    });
  }

  /**
   * Notes a write of `length` bytes (NaN if unknown) to the descriptor in the argument `to`.
   * @param at offset in the file, or `position` for the position of the descriptor.
   * @param flags flags of pwritev2.
   */
  #writeAt(
    call: Call,
    process: Process,
    { to, at, length, flags }: { to: number; at: number | 'position'; length: number; flags: string },
  ): void {
    const file = this.#fileAt(call.args[to], process);
    if (file === undefined) return;
    const open = this.#openFileOf(call.args[to], file, process);
    let start: WriteEvent['start'] = at === 'position' ? 'unknown' : at;
    if (open?.append === true || flags.includes('RWF_APPEND')) start = 'append';
    else if (at === 'position' && open !== undefined && !file.positionsUnknown)
      start = open.position ?? 'unknown';
    forgetPositionsAtEnd(file, at === 'position' ? open : undefined);
    if (at === 'position') {
      if (open === undefined) file.positionsUnknown = true;
      else if (open.position !== undefined)
        open.position = Number.isFinite(length) ? open.position + length : undefined;
    }
    if (!Number.isFinite(length)) {
      start = 'unknown';
      length = 0;
    }
    file.events.push({ kind: 'write', start, length, entry: call.entry, doneOffset: call.doneOffset });
    // If no opening of the file was traced, a process outside has opened it, perhaps with O_SYNC. Count the write as
    // a sync then, in favour of the target.
    const synced = open?.sync ?? (file.opened.sync || !file.opened.plain);
    if (synced || flags.includes('SYNC')) {
      const range = typeof start === 'number' ? { start, end: start + length } : WHOLE_FILE;
      this.#sync(file, range, call);
    }
  }

  /** Returns the open file of a descriptor, unless the log does not show what the descriptor has become. */
  #openFileOf(
    argument: string | undefined,
    file: ReplayedFile,
    process: Process,
  ): OpenFile<ReplayedFile> | undefined {
    const known = process.openFile(descriptorOf(argument)?.fd);
    return known?.file === file ? known : undefined;
  }

  #unknownWrite(file: ReplayedFile | undefined, { entry, doneOffset }: Call): void {
    if (file !== undefined) forgetPositionsAtEnd(file);
    file?.events.push({ kind: 'write', start: 'unknown', length: 0, entry, doneOffset });
  }

  #allocate(call: Call, process: Process): void {
    // Space that is only reserved behind the end changes no byte of the file.
    if (call.args[1] !== 'FALLOC_FL_KEEP_SIZE') this.#unknownWrite(this.#fileAt(call.args[0], process), call);
  }

  /** Replays the ioctl calls that let a file share the blocks of another one. */
  #cloneRange(call: Call, process: Process): void {
    if (!/FICLONE|FIDEDUPERANGE/.test(call.args[1] ?? '')) return;
    this.#unknownWrite(this.#fileAt(call.args[0], process), call);
    // Each argument can name the file from which it copies, also inside a structure.
    const source = /(\d+<[^>]*>(?:\(deleted\))?)/.exec(call.args[2] ?? '')?.[1];
    this.#useStart(this.#fileAt(source, process), 'used');
  }

  #truncate(file: ReplayedFile | undefined, call: Call): void {
    const length = Number(call.args[1]);
    if (call.result !== '0' || !Number.isSafeInteger(length)) {
      this.#unknownWrite(file, call);
      return;
    }
    const { entry, doneOffset } = call;
    if (file !== undefined) forgetPositionsAtEnd(file);
    this.#useStart(file, { keptBytes: length, doneOffset });
    file?.events.push({ kind: 'write', start: 'truncate', length, entry, doneOffset });
  }

  #truncatePath(call: Call, process: Process): void {
    const path = this.#pathAt(call, process, [0]);
    if (path === undefined) this.#inconclusiveReason ||= 'a file was truncated by a relative path';
    else this.#truncate(this.#file(path), call);
  }

  /** Notes what became first of the content that a file had at the start. */
  #useStart(file: ReplayedFile | undefined, use: StartUse): void {
    if (file?.startPath !== undefined) this.#startContent.use(file.startPath, use);
  }

  /** Returns the path in an argument without symbolic links in its folder; undefined when it is not known. */
  #pathAt(call: Call, process: Process, [at, folderAt]: PathArguments): string | undefined {
    const path = process.absolutePath(
      call.args[at],
      folderAt === undefined ? undefined : call.args[folderAt],
    );
    if (path === undefined) return undefined;
    const folder = dirname(path);
    return join(this.#realPath(folder) ?? resolve(folder), basename(path));
  }

  #folderAt(call: Call, process: Process): string | undefined {
    const path = process.absolutePath(call.args[0]);
    return path === undefined ? undefined : (this.#realPath(path) ?? resolve(path));
  }

  #move(call: Call, process: Process, from: PathArguments, to: PathArguments): void {
    const before = this.#pathAt(call, process, from);
    const after = this.#pathAt(call, process, to);
    if (before === undefined || after === undefined) {
      this.#inconclusiveReason ||= 'a file was renamed by a relative path';
      return;
    }
    const exchanges = call.args[4]?.includes('RENAME_EXCHANGE') === true;
    const moved = this.#filesAt(before);
    const replaced = this.#filesAt(after).map(([rest, file]) => {
      // A sync under the new name can appear in the log before the line on which the rename returns.
      return [rest, file, file.events.filter((event) => event.entry > call.entry)] as const;
    });
    this.#startContent.leave(before);
    this.#startContent.leave(after);
    for (const [rest] of moved) this.#files.delete(before + rest);
    for (const [rest, file] of replaced) {
      this.#files.delete(after + rest);
      this.#files.set(exchanges ? before + rest : deletedName(after + rest), file);
    }
    for (const [rest, file] of moved) {
      const early = replaced.find(([other]) => other === rest)?.[2] ?? [];
      this.#files.set(after + rest, file);
      file.events.push(...early);
    }
  }

  #link(call: Call, process: Process, from: PathArguments, to: PathArguments): void {
    const after = this.#pathAt(call, process, to);
    const named = quotedPath(call.args[from[0]]);
    const folder = call.args[from[1] ?? -1];
    const descriptor = /^\/proc\/(?:self|thread-self|\d+)\/fd\/(\d+)$/.exec(named ?? '')?.[1];
    // O_TMPFILE: the file gets its first name, from its descriptor.
    const nameless =
      named === '' ? this.#fileAt(folder, process) : process.openFile(descriptorNumber(descriptor))?.file;
    const before = nameless === undefined ? this.#pathAt(call, process, from) : undefined;
    if (after === undefined || (nameless === undefined && before === undefined)) {
      this.#inconclusiveReason ||= 'a file was linked by a relative path';
      return;
    }
    if (before !== undefined) this.#startContent.leave(before);
    const file = nameless ?? this.#file(before ?? '');
    file.events.push(...(this.#files.get(after)?.events.filter((event) => event.entry > call.entry) ?? []));
    this.#files.set(after, file);
  }

  /** Returns the files at a path and below it, with the rest of their path. */
  #filesAt(path: string): [rest: string, file: ReplayedFile][] {
    return [...this.#files].flatMap(([name, file]) =>
      name === path || name.startsWith(`${path}/`) ? [[name.slice(path.length), file]] : [],
    );
  }

  #unlink(call: Call, path: string | undefined): void {
    if (path === undefined || call.result === undefined) return;
    const file = this.#files.get(path);
    this.#startContent.leave(path);
    if (file === undefined) return;
    this.#files.delete(path);
    this.#files.set(deletedName(path), file);
  }

  #markUntraceable(call: Call): void {
    if (call.result !== undefined)
      this.#inconclusiveReason = `the target writes through ${call.name}, which a trace does not show`;
  }
}

/** The calls that a trace must contain for `readTrace`. */
export const TRACED_CALLS: readonly string[] = Object.keys(TraceReader.handlers);

/** Positions of a path in the arguments of a call, and of the descriptor of the folder to which it is relative. */
type PathArguments = readonly [path: number, folder?: number];

/**
 * Forgets the positions that may no longer be the end of a file, because the file has perhaps another size now.
 * @param writer the open file through which it got the size, and whose position is the end again.
 */
function forgetPositionsAtEnd(file: ReplayedFile, writer?: OpenFile<ReplayedFile>): void {
  for (const open of file.atEnd) {
    if (open === writer) continue;
    open.position = undefined;
    file.atEnd.delete(open);
  }
}

/** Returns the key of a file without a name. A path cannot end like this in the log. */
function deletedName(path: string): string {
  return `${path}\0deleted`;
}

function isClone(name: string): boolean {
  return ['clone', 'clone3', 'fork', 'vfork'].includes(name);
}

function requestedLength(call: Call): number {
  return call.name === 'write' || call.name === 'pwrite64' ? Number(call.args[2]) : Number.NaN;
}

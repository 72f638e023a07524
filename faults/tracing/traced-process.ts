import { join } from 'node:path';
import { type Call, descriptorOf, quotedPath } from './strace-log.js';

/** A range of bytes in a file, or of addresses; `end` is not part of it. */
export interface ByteRange {
  start: number;
  end: number;
}

/** A range of addresses of a process that maps a part of a file. */
export interface Mapping<F> extends ByteRange {
  file: F;
  fileOffset: number;
}

/** An open file. Duplicated and inherited descriptors share it. */
export interface OpenFile<F> {
  file: F;
  append: boolean;
  sync: boolean;
  /**
   * Offset of the next write; undefined when a call that the trace does not show may have changed it. A read is such a
   * call, but it does not move a position at the end of the file.
   */
  position: number | undefined;
  /** True when the position is known only because it has been the end of the file from the opening on. */
  onlyAtEnd?: boolean;
}

/** The folders from which a process resolves names. */
interface Folders {
  /** Working directory; undefined until the log shows it. */
  working: string | undefined;
  /** `/` unless the process has called chroot. */
  root: string;
}

const PAGE_BYTES = 4096;

/**
 * The mappings, descriptors and folders of a process, as the calls in a log have made them. Threads share them; a child
 * process gets copies of those that its clone call does not share.
 */
export class TracedProcess<F> {
  #mappings: { list: Mapping<F>[] } = { list: [] };
  #descriptors = new Map<number, OpenFile<F>>();
  #folders: Folders = { working: undefined, root: '/' };

  /**
   * @param parent the process that made this one; undefined for the first process of a service.
   * @param flags flags of the clone call that made it.
   */
  constructor(parent: TracedProcess<F> | undefined, flags: string) {
    if (parent === undefined) return;
    this.#mappings = flags.includes('CLONE_VM') ? parent.#mappings : { list: [...parent.#mappings.list] };
    this.#descriptors = flags.includes('CLONE_FILES') ? parent.#descriptors : new Map(parent.#descriptors);
    this.#folders = flags.includes('CLONE_FS') ? parent.#folders : { ...parent.#folders };
  }

  /** Forgets the mappings, as execve does. */
  execute(): void {
    this.#mappings = { list: [] };
  }

  /** Replays unshare(2). */
  unshare({ args }: Call): void {
    const flags = args[0] ?? '';
    if (flags.includes('CLONE_FS')) this.#folders = { ...this.#folders };
    if (flags.includes('CLONE_FILES')) this.#descriptors = new Map(this.#descriptors);
  }

  /** Adds a mapping in place of those at its addresses. */
  map(mapping: Mapping<F>): void {
    this.unmap(mapping.start, mapping.end - mapping.start);
    this.#mappings.list.push({ ...mapping, end: mapping.start + wholePages(mapping.end - mapping.start) });
  }

  /** Removes the mappings at a range of addresses. */
  unmap(start: number, length: number): void {
    const end = start + wholePages(length);
    this.#mappings.list = this.#mappings.list.flatMap((mapping) => {
      if (mapping.end <= start || mapping.start >= end) return [mapping];
      const parts: Mapping<F>[] = [];
      if (mapping.start < start) parts.push({ ...mapping, end: start });
      if (mapping.end > end) {
        parts.push({ ...mapping, start: end, fileOffset: mapping.fileOffset + (end - mapping.start) });
      }
      return parts;
    });
  }

  /** Replays mremap(2). */
  remap(call: Call): void {
    const [oldStart, oldLength, newLength] = call.args.map(Number);
    const newStart = Number(call.result);
    if (oldStart === undefined || oldLength === undefined || newLength === undefined) return;
    const moved = this.#mappings.list.find(({ start, end }) => start <= oldStart && oldStart < end);
    this.unmap(oldStart, oldLength);
    this.unmap(newStart, newLength);
    if (moved === undefined) return;
    const fileOffset = moved.fileOffset + (oldStart - moved.start);
    this.map({ file: moved.file, fileOffset, start: newStart, end: newStart + newLength });
  }

  /** Returns the parts of files, as ranges of their bytes, that are mapped at a range of addresses. */
  mappedAt(start: number, length: number): { file: F; range: ByteRange }[] {
    const end = start + wholePages(length);
    return this.#mappings.list.flatMap((mapping) => {
      const from = Math.max(start, mapping.start);
      const to = Math.min(end, mapping.end);
      const offset = mapping.fileOffset - mapping.start;
      return from < to ? [{ file: mapping.file, range: { start: from + offset, end: to + offset } }] : [];
    });
  }

  /** Returns the open file of a descriptor, or undefined when the log does not show its opening. */
  openFile(descriptor: number | undefined): OpenFile<F> | undefined {
    return descriptor === undefined ? undefined : this.#descriptors.get(descriptor);
  }

  /** Notes that a call has opened a file. */
  open(descriptor: number, file: OpenFile<F>): void {
    this.#descriptors.set(descriptor, file);
  }

  /** Replays close(2). */
  close(call: Call): void {
    this.#descriptors.delete(descriptorNumber(call.args[0]));
  }

  /** Replays dup(2), dup2(2) and dup3(2). */
  duplicate(call: Call): void {
    const from = this.#descriptors.get(descriptorNumber(call.args[0]));
    const to = descriptorNumber(call.result);
    if (from) this.#descriptors.set(to, from);
    else this.#descriptors.delete(to);
  }

  /** Replays lseek(2). */
  seek(call: Call): void {
    const open = this.#descriptors.get(descriptorNumber(call.args[0]));
    if (open?.position === undefined) return;
    const position = call.result === undefined ? undefined : Number.parseInt(call.result, 10);
    open.position = open.onlyAtEnd === true && position !== open.position ? undefined : position;
  }

  /** Replays chdir(2) and fchdir(2), which have succeeded. */
  changeFolder(path: string | undefined): void {
    this.#folders.working = path;
  }

  /** Replays chroot(2), which has succeeded. */
  changeRoot(path: string | undefined): void {
    this.#folders.root = path ?? '/';
  }

  /** Learns the working directory from an argument such as `AT_FDCWD</data>`, as `-y` prints it. */
  learnFolder({ args }: Call): void {
    for (const text of [args[0], args[2]]) {
      const folder = text?.startsWith('AT_FDCWD<') === true ? descriptorOf(text) : undefined;
      if (folder?.deleted === false) this.#folders.working = folder.path;
    }
  }

  /**
   * Returns the path in an argument as an absolute path on the machine. Symbolic links in it are not resolved.
   * @param folder the argument with the descriptor of the folder to which the path is relative; undefined when it is
   * relative to the working directory.
   * @returns undefined when the path is relative and its folder is not known.
   */
  absolutePath(path: string | undefined, folder?: string): string | undefined {
    const name = quotedPath(path);
    if (name === undefined) return undefined;
    if (name.startsWith('/')) return this.#folders.root === '/' ? name : join(this.#folders.root, name);
    const base = descriptorOf(folder)?.path ?? (isDescriptor(folder) ? undefined : this.#folders.working);
    // The parts `..` stay, because they follow symbolic links.
    return base?.startsWith('/') === true ? `${base}/${name}` : undefined;
  }
}

/** Checks for a number: a descriptor whose path strace could not find out. */
function isDescriptor(text: string | undefined): boolean {
  return /^\d/.test(text ?? '');
}

/** Returns the number at the start of a descriptor in a log. */
export function descriptorNumber(text: string | undefined): number {
  return Number.parseInt(text ?? '', 10);
}

function wholePages(length: number): number {
  return Math.ceil(length / PAGE_BYTES) * PAGE_BYTES;
}

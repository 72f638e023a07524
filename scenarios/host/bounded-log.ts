import {
  appendFileSync,
  closeSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readSync,
  renameSync,
  writeSync,
} from 'node:fs';
import { limit } from '../../conformance/limits.js';
import { punchHole } from '../../faults/power/syscalls.js';
import { sizeOf } from './log-tail.js';

/** Unit in which a filesystem gives blocks back. */
const BLOCK_BYTES = 4096;
/** Shortest part of a log that is dropped. A shorter one is not worth a system call. */
const MIN_DROPPED_BYTES = 1 << 20;
const CHUNK_BYTES = 1 << 20;

/** A part of a file, in bytes from its start. */
interface Range {
  from: number;
  to: number;
}

/**
 * Bounds a log to which processes append. Of the output of each start it keeps the head and the tail, and of all starts
 * at most `log-bytes`.
 *
 * The processes have the file itself, and no pipe to the kit: a kit that is busy or stopped must not block them, and a
 * service that outlives the kit goes on. So the size of the file grows with all they write, and the kit gives the
 * blocks of the middle back to the filesystem. No byte changes its position while a process may append.
 */
export class BoundedLog {
  readonly #path: string;
  /** What is kept of earlier starts, in order. */
  readonly #kept: Range[] = [];
  /** Offset in the log, in bytes, at which the output of the current start begins. */
  #startByte: number;
  /** End of the part of the current start that is dropped; its begin is where the head ends. */
  #droppedTo: number | undefined;
  #lostBytes = 0;

  constructor(path: string) {
    this.#path = path;
    this.#startByte = sizeOf(path);
    if (this.#startByte > 0) this.#kept.push({ from: 0, to: this.#startByte });
  }

  /** Begins the output of a new start. Must be called before the process is started. */
  begin(): void {
    const size = sizeOf(this.#path);
    this.#kept.push(...this.#rangesOfStart(size));
    this.#startByte = size;
    this.#droppedTo = undefined;
    this.#dropStarts();
  }

  /** Drops the middle of what the current start has written. Must be called often while a process may write. */
  check(): void {
    const size = sizeOf(this.#path);
    const from = this.#droppedTo ?? this.#headEnd();
    const to = Math.floor((size - limit('log-tail-bytes')) / BLOCK_BYTES) * BLOCK_BYTES;
    if (to - from < Math.min(MIN_DROPPED_BYTES, limit('log-tail-bytes'))) return;
    if (this.#drop({ from, to })) this.#droppedTo = to;
  }

  /**
   * Rewrites the file without what was dropped, and with a line in each of those places that says how much it was.
   * No process may write to the log any more.
   */
  compact(): void {
    this.check();
    const size = sizeOf(this.#path);
    const kept = [...this.#kept, ...this.#rangesOfStart(size)];
    if (this.#lostBytes > 0) appendFileSync(this.#path, describeDropped(this.#lostBytes));
    else if (kept.some(({ from }, index) => from !== (kept[index - 1]?.to ?? 0)))
      keepRanges(this.#path, kept);
    else return;
    this.#kept.splice(0, this.#kept.length, { from: 0, to: sizeOf(this.#path) });
    this.#startByte = sizeOf(this.#path);
    this.#droppedTo = undefined;
    this.#lostBytes = 0;
  }

  #headEnd(): number {
    return Math.ceil((this.#startByte + limit('log-head-bytes')) / BLOCK_BYTES) * BLOCK_BYTES;
  }

  #rangesOfStart(size: number): Range[] {
    if (size <= this.#startByte) return [];
    if (this.#droppedTo === undefined) return [{ from: this.#startByte, to: size }];
    return [
      { from: this.#startByte, to: this.#headEnd() },
      { from: this.#droppedTo, to: size },
    ];
  }

  /** Drops the oldest starts but the first when all together keep too much. */
  #dropStarts(): void {
    const keptBytes = () => this.#kept.reduce((sum, { from, to }) => sum + to - from, 0);
    while (this.#kept.length > 2 && keptBytes() > limit('log-bytes')) {
      const [range] = this.#kept.splice(1, 1);
      if (range !== undefined) this.#drop(range);
    }
  }

  /** Returns false if the file was truncated instead, because its filesystem has no holes. */
  #drop({ from, to }: Range): boolean {
    const fd = openSync(this.#path, 'r+');
    try {
      if (punchHole(fd, from, to - from)) return true;
      // A process that appends goes on at the new end.
      this.#lostBytes += Math.max(0, fstatSync(fd).size - from);
      ftruncateSync(fd, from);
      return false;
    } finally {
      closeSync(fd);
    }
  }
}

/**
 * Appends to a log that only the kit writes, such as that of a command. When the log grows beyond `log-bytes`, its
 * middle is dropped.
 */
export function appendToLog(path: string, text: string): void {
  appendFileSync(path, text);
  const size = sizeOf(path);
  if (size > limit('log-bytes')) keepEnds(path, size);
}

function keepEnds(path: string, size: number): void {
  const [head, tail] = [limit('log-head-bytes'), limit('log-tail-bytes')];
  if (head + tail >= size) return;
  keepRanges(path, [
    { from: 0, to: head },
    { from: size - tail, to: size },
  ]);
}

/** Rewrites a file with these parts of it, and a line for each gap before a part. */
function keepRanges(path: string, ranges: readonly Range[]): void {
  const unfinished = `${path}.part`;
  const [from, to] = [openSync(path, 'r'), openSync(unfinished, 'w')];
  try {
    let end = 0;
    for (const range of ranges) {
      if (range.from > end) writeSync(to, describeDropped(range.from - end));
      copyRange(from, to, range);
      end = range.to;
    }
  } finally {
    closeSync(from);
    closeSync(to);
  }
  renameSync(unfinished, path);
}

function describeDropped(bytes: number): string {
  return `\n[plugpull: ${bytes} bytes of this log were dropped here]\n`;
}

function copyRange(from: number, to: number, range: Range): void {
  const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
  for (let at = range.from; at < range.to; ) {
    const length = readSync(from, chunk, 0, Math.min(CHUNK_BYTES, range.to - at), at);
    if (length === 0) return;
    writeSync(to, chunk, 0, length);
    at += length;
  }
}

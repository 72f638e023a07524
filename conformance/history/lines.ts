import { closeSync, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import { gzipSync, inflateRawSync } from 'node:zlib';
import { messageOf } from '../errors.js';
import { beyond, LimitError, limit } from '../limits.js';
import { openRegularFile } from '../read-file.js';

/*
 * Readers of files that are too large for memory. They hold one chunk and one line at a time.
 *
 * A packed history is a series of gzip members with at most PART_BYTES of text each, which every gunzip unpacks as
 * one file. Each member can be unpacked alone, so that a reader holds one member at a time.
 */

const NEWLINE = 0x0a;
const CHUNK_BYTES = 1 << 20;
/** Text in one member of a packed history. */
const PART_BYTES = 1 << 20;
/** Header of a member as zlib writes it: no name, no comment. */
const GZIP_HEAD = Buffer.from([0x1f, 0x8b, 8, 0]);
const GZIP_HEAD_BYTES = 10;
/** Checksum and length behind the data of a member. */
const GZIP_TAIL_BYTES = 8;
/** Packed bytes that are given to zlib at first. A member of PART_BYTES is smaller, even if nothing can be packed. */
const WINDOW_BYTES = 2 * PART_BYTES;
/**
 * Upper bound of the text of one member, in bytes. Version 0.1.0 packed a history as one member, which must be
 * unpacked as a whole.
 */
const MAX_MEMBER_BYTES = 256 << 20;
/** Text that a packed history may have whatever its packed size is: a short one can be very regular. */
const RATIO_FREE_BYTES = 64 << 20;

/**
 * Yields the chunks of a file.
 * @throws Error whose message completes `expected …: ` when it is no regular file.
 */
export function* chunksOf(path: string): Generator<Buffer> {
  const fd = openRegularFile(path);
  try {
    for (;;) {
      const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
      const length = readSync(fd, chunk, 0, CHUNK_BYTES, null);
      if (length === 0) return;
      yield chunk.subarray(0, length);
    }
  } finally {
    closeSync(fd);
  }
}

/** Packs a file as a series of gzip members. */
export function packFile(from: string, to: string): void {
  const fd = openSync(to, 'wx');
  try {
    for (const chunk of chunksOf(from)) {
      const member = gzipSync(chunk);
      for (let done = 0; done < member.length; ) done += writeSync(fd, member, done);
    }
  } finally {
    closeSync(fd);
  }
}

/**
 * Yields the unpacked chunks of a packed history.
 * @throws Error whose message completes `expected …: ` when it is damaged, or unpacks to more than the limits allow.
 */
export function* unpackedChunksOf(path: string): Generator<Buffer> {
  const fd = openRegularFile(path);
  try {
    const sizeBytes = fstatSync(fd).size;
    const maxBytes = Math.max(RATIO_FREE_BYTES, sizeBytes * limit('history-ratio'));
    let textBytes = 0;
    for (let at = 0; at < sizeBytes; ) {
      const member = unpackMember(fd, at, sizeBytes);
      at += member.packedBytes;
      textBytes += member.text.length;
      if (textBytes > maxBytes)
        throw new LimitError(`it unpacks to ${beyond('history-ratio', 'times its size')}`);
      yield member.text;
    }
  } finally {
    closeSync(fd);
  }
}

function unpackMember(fd: number, start: number, sizeBytes: number): { text: Buffer; packedBytes: number } {
  for (let windowBytes = WINDOW_BYTES; ; windowBytes *= 4) {
    const window = Buffer.allocUnsafe(Math.min(windowBytes, sizeBytes - start));
    const length = readSync(fd, window, 0, window.length, start);
    if (length < GZIP_HEAD_BYTES || !window.subarray(0, GZIP_HEAD.length).equals(GZIP_HEAD))
      throw new Error('it is not packed by gzip');
    try {
      const options = { maxOutputLength: MAX_MEMBER_BYTES, info: true };
      // With `info` zlib returns an object; the type declarations know only the Buffer.
      const { buffer, engine } = inflateRawSync(
        window.subarray(GZIP_HEAD_BYTES, length),
        options,
      ) as unknown as {
        buffer: Buffer;
        engine: { bytesWritten: number };
      };
      return { text: buffer, packedBytes: GZIP_HEAD_BYTES + engine.bytesWritten + GZIP_TAIL_BYTES };
    } catch (error) {
      if (error instanceof Error && 'code' in error && error.code === 'ERR_BUFFER_TOO_LARGE')
        throw new LimitError(`a part of it unpacks to more than ${MAX_MEMBER_BYTES} bytes`);
      const isCut = error instanceof Error && 'code' in error && error.code === 'Z_BUF_ERROR';
      if (!isCut || start + length >= sizeBytes) throw new Error(messageOf(error), { cause: error });
    }
  }
}

/**
 * Yields the lines of a text without their ends. A line is valid until the next one is taken.
 * @throws Error whose message completes `expected …: ` at a line or a text that is too long, and when the text ends
 * within a line.
 */
export function* linesOf(chunks: Iterable<Buffer>): Generator<Buffer> {
  const [maxLineBytes, maxBytes] = [limit('history-line-bytes'), limit('history-bytes')];
  let begun: Buffer[] = [];
  let begunBytes = 0;
  let bytes = 0;
  for (const chunk of chunks) {
    bytes += chunk.length;
    if (bytes > maxBytes) throw new LimitError(`it has ${beyond('history-bytes', 'bytes')}`);
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, start)) {
      const rest = chunk.subarray(start, end);
      if (begunBytes + rest.length > maxLineBytes) throw lineTooLong();
      yield begunBytes === 0 ? rest : Buffer.concat([...begun, rest]);
      begun = [];
      begunBytes = 0;
      start = end + 1;
    }
    if (start === chunk.length) continue;
    begun.push(chunk.subarray(start));
    begunBytes += chunk.length - start;
    if (begunBytes > maxLineBytes) throw lineTooLong();
  }
  if (begunBytes > 0) throw new LineError('the file ends within it');
}

/** Error of the line behind the last one that was yielded. The message completes `expected a whole line, …`. */
export class LineError extends Error {}

function lineTooLong(): LineError {
  const text = `it has ${beyond('history-line-bytes', 'bytes')}`;
  return new LineError(text, { cause: new LimitError(text) });
}

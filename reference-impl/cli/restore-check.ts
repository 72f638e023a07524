import { readSync, writeSync } from 'node:fs';
import { QueueError } from '../errors.js';
import { type ByteRange, RestoreCheck, type Restored } from '../queue/restore-check.js';

/**
 * Answers requests on stdin until it ends, one JSON object a line each way:
 *
 *     {"queue": DIR}                restore the queue in that directory, for good
 *     {"data": FILE, "index": FILE} the same from the bytes of two files, which are not changed
 *     … "changed": {"data": [[FROM, TO], …]}
 *                                   with it: only these bytes may differ from when the file was named before
 *
 *     {"live": [N, …], "names": {N: SHA-256, …}, "problems": […], "keptAside": N}
 *     {"error": "…"}                the queue cannot be restored
 *
 * It waits for each line in the system call itself: thousands come, and an event loop costs more than a restore.
 *
 * @throws QueueError `bad-setting` for a line that is neither.
 */
export function restoreCheck(): void {
  const check = new RestoreCheck();
  for (const line of linesOf(0)) {
    const request = parse(line);
    writeAll(1, `${JSON.stringify(answer(check, request))}\n`);
  }
}

function answer(check: RestoreCheck, request: Request): Restored | { error: string } {
  try {
    if ('queue' in request) return check.directory(request.queue);
    return check.files(request.data, request.index, request.changed);
  } catch (failure) {
    return { error: failure instanceof Error ? failure.message : String(failure) };
  }
}

type Request = { queue: string } | { data: string; index: string; changed: ByteRange[] | undefined };

function parse(line: string): Request {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    value = undefined;
  }
  const { queue, data, index, changed } = fieldsOf(value);
  if (typeof queue === 'string') return { queue };
  const ranges = fieldsOf(changed).data;
  if (typeof data === 'string' && typeof index === 'string' && (ranges === undefined || areRanges(ranges)))
    return { data, index, changed: ranges };
  throw new QueueError(
    'bad-setting',
    `stdin: found ${line.slice(0, 80)}, expected {"queue": DIR} or {"data": FILE, "index": FILE}`,
  );
}

function fieldsOf(value: unknown): Record<string, unknown> {
  return (typeof value === 'object' && value !== null ? value : {}) as Record<string, unknown>;
}

function areRanges(value: unknown): value is ByteRange[] {
  const isRange = (one: unknown) => Array.isArray(one) && one.length === 2 && one.every(Number.isSafeInteger);
  return Array.isArray(value) && value.every(isRange);
}

const CHUNK_BYTES = 65_536;
const RETRY_MS = 1;

function* linesOf(fd: number): Generator<string, void> {
  const chunk = Buffer.alloc(CHUNK_BYTES);
  let rest = '';
  for (;;) {
    const length = patiently(() => readSync(fd, chunk, 0, chunk.length, null));
    if (length === 0) break;
    const lines = (rest + chunk.toString('latin1', 0, length)).split('\n');
    rest = lines.pop() ?? '';
    // Whole lines only: a character may be cut in two at the end of a chunk.
    for (const line of lines) yield Buffer.from(line, 'latin1').toString();
  }
  // The last line need not end in one.
  if (rest !== '') yield Buffer.from(rest, 'latin1').toString();
}

function writeAll(fd: number, text: string): void {
  for (let left = Buffer.from(text); left.length > 0; ) {
    const bytes = left;
    left = bytes.subarray(patiently(() => writeSync(fd, bytes)));
  }
}

/** Whoever has started this may have left a pipe behind that does not wait. */
function patiently(call: () => number): number {
  for (;;) {
    try {
      return call();
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'EAGAIN')) throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, RETRY_MS);
    }
  }
}

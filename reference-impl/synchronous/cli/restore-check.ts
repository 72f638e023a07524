import { closeSync, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import { QueueError } from '../platform/errors.js';
import {
  type Patch,
  RestoreCheck,
  type RestoreCheckResult,
  type StatePatches,
} from '../queue/restore-check.js';

/**
 * Answers requests on stdin until it ends, one JSON object a line each way:
 *
 *     {"queue": DIR}                restore the queue in that directory, for good
 *     {"data": FILE, "index": FILE} the same from the bytes of two files, which are not changed
 *     {"data": FILE, "index": FILE, "patches": FILE, "states": [{"data": [[FROM, TO, AT], …], "index": […]}, …]}
 *                                   several, one after the other: each is the last one that came of these files, with the bytes
 *                                   of `patches` from AT on put into them, from FROM to the one before TO
 *
 *     {"live": [N, …], "names": {N: SHA-256, …}, "problems": […], "keptAside": N}
 *     {"error": "…"}                the queue cannot be restored
 *
 * with a line for each state. The answers to one request are written together: a process that reads each at once would take
 * the processor away, and each of the two would find the other's traces in its caches.
 *
 * It waits for each line in the system call itself: thousands come, and an event loop costs more than a restore.
 *
 * @throws QueueError `bad-setting` for a line that is neither.
 */
export function restoreCheck(): void {
  const check = new RestoreCheck();
  for (const line of linesOf(0)) {
    const request = parse(line);
    writeAll(
      1,
      answerRequest(check, request)
        .map((answer) => `${JSON.stringify(answer)}\n`)
        .join(''),
    );
  }
}

type Answer = RestoreCheckResult | { error: string };

function answerRequest(check: RestoreCheck, request: Request): Answer[] {
  if ('queue' in request) return [restoreOrError(() => check.directory(request.queue))];
  const { data, index, steps } = request;
  if (steps === undefined) return [restoreOrError(() => check.restoreFiles(data, index))];
  let neededBytes = 0;
  for (const step of steps.states) {
    for (const [from, to, at] of [...step.data, ...step.index])
      neededBytes = Math.max(neededBytes, at + to - from);
  }
  const bytes = readFirstBytes(steps.patches, neededBytes);
  return steps.states.map((step) => restoreOrError(() => check.restorePatched(data, step, bytes)));
}

function restoreOrError(restore: () => RestoreCheckResult): Answer {
  try {
    return restore();
  } catch (failure) {
    return { error: failure instanceof Error ? failure.message : String(failure) };
  }
}

let sharedBuffer = Buffer.alloc(0);

/** The first bytes of a file; good until the next call. A buffer for each request would be cleared and collected each time. */
function readFirstBytes(path: string, maxBytes: number): Buffer {
  const fd = openSync(path, 'r');
  try {
    const size = Math.min(maxBytes, fstatSync(fd).size);
    if (size > sharedBuffer.length) sharedBuffer = Buffer.alloc(2 * size);
    return sharedBuffer.subarray(0, readSync(fd, sharedBuffer, 0, size, 0));
  } finally {
    closeSync(fd);
  }
}

type Request =
  | { queue: string }
  | { data: string; index: string; steps: { patches: string; states: StatePatches[] } | undefined };

function parse(line: string): Request {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    value = undefined;
  }
  const { queue, data, index, patches, states } = fieldsOf(value);
  if (typeof queue === 'string') return { queue };
  if (typeof data === 'string' && typeof index === 'string') {
    if (patches === undefined && states === undefined) return { data, index, steps: undefined };
    if (typeof patches === 'string' && areStatePatches(states))
      return { data, index, steps: { patches, states } };
  }
  throw new QueueError(
    'bad-setting',
    `stdin: found ${line.slice(0, 80)}, expected {"queue": DIR} or {"data": FILE, "index": FILE}, the latter with "patches" and "states" or without`,
  );
}

function fieldsOf(value: unknown): Record<string, unknown> {
  return (typeof value === 'object' && value !== null ? value : {}) as Record<string, unknown>;
}

function areStatePatches(value: unknown): value is StatePatches[] {
  const isStep = (one: unknown) => arePatches(fieldsOf(one).data) && arePatches(fieldsOf(one).index);
  return Array.isArray(value) && value.every(isStep);
}

function arePatches(value: unknown): value is Patch[] {
  const isPatch = (one: unknown) =>
    Array.isArray(one) &&
    one.length === 3 &&
    one.every((number) => Number.isSafeInteger(number) && number >= 0);
  return Array.isArray(value) && value.every(isPatch);
}

const CHUNK_BYTES = 65_536;
const RETRY_INTERVAL_MS = 1;

function* linesOf(fd: number): Generator<string, void> {
  const chunk = Buffer.alloc(CHUNK_BYTES);
  let rest = '';
  for (;;) {
    const length = retryWhileBusy(() => readSync(fd, chunk, 0, chunk.length, null));
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
    left = bytes.subarray(retryWhileBusy(() => writeSync(fd, bytes)));
  }
}

/** Whoever has started this may have left a pipe behind that does not wait. */
function retryWhileBusy(call: () => number): number {
  for (;;) {
    try {
      return call();
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'EAGAIN')) throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, RETRY_INTERVAL_MS);
    }
  }
}

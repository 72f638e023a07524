import { readSync, writeSync } from 'node:fs';
import { QueueError } from '../../common/platform/errors.js';
import { visibleJson } from '../../common/platform/visible.js';
import { withoutTrace } from '../gateway/inbound/trace.js';
import { RestoreCheck, type RestoreCheckResult } from '../queue/restore-check.js';

/**
 * Answers requests on stdin until it ends, one JSON object a line each way:
 *
 *     {"queue": DIR}                restore the queue in that directory, for good
 *
 *     {"live": [N, …], "names": {N: SHA-256, …}, "problems": […], "keptAside": N}
 *     {"error": "…"}                the queue cannot be restored
 *
 * The command reads each line with a blocking system call: it gets thousands of requests, and the event loop
 * would cost more time than a restore.
 *
 * @throws QueueError `bad-setting` for a line that is not a request.
 */
export function restoreCheck(): void {
  const check = new RestoreCheck(withoutTrace);
  for (const line of linesOf(0)) {
    const queue = parseQueue(line);
    writeAll(1, `${visibleJson(JSON.stringify(restoreOrError(() => check.directory(queue))))}\n`);
  }
}

function restoreOrError(restore: () => RestoreCheckResult): RestoreCheckResult | { error: string } {
  try {
    return restore();
  } catch (failure) {
    return { error: failure instanceof Error ? failure.message : String(failure) };
  }
}

function parseQueue(line: string): string {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    value = undefined;
  }
  const { queue } = (typeof value === 'object' && value !== null ? value : {}) as Record<string, unknown>;
  if (typeof queue === 'string') return queue;
  throw new QueueError('bad-setting', `stdin: found ${line.slice(0, 80)}, expected {"queue": DIR}`);
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
    // Decode only complete lines: a character may be cut in two at the end of a chunk.
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

/**
 * Calls `call` again while it fails with EAGAIN: the program that started this process may have left a pipe
 * in non-blocking mode.
 */
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

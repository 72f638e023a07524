import { createInterface } from 'node:readline';
import { QueueError } from '../errors.js';
import { RestoreCheck } from '../queue/restore-check.js';
import { printLine } from './output.js';

/**
 * Answers requests on stdin until it ends, one JSON object a line each way:
 *
 *     {"queue": DIR}                restore the queue in that directory, for good
 *     {"data": FILE, "index": FILE} the same from the bytes of two files, which are not changed
 *
 *     {"live": [N, …], "names": {N: SHA-256, …}, "problems": […], "keptAside": N}
 *     {"error": "…"}                the queue cannot be restored
 *
 * @throws QueueError `bad-setting` for a line that is neither.
 */
export async function restoreCheck(): Promise<void> {
  const check = new RestoreCheck();
  for await (const line of createInterface({ input: process.stdin })) {
    const request = parse(line);
    try {
      await printLine(
        'queue' in request ? check.directory(request.queue) : check.files(request.data, request.index),
      );
    } catch (failure) {
      await printLine({ error: failure instanceof Error ? failure.message : String(failure) });
    }
  }
}

type Request = { queue: string } | { data: string; index: string };

function parse(line: string): Request {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    value = undefined;
  }
  const fields = (typeof value === 'object' && value !== null ? value : {}) as Record<string, unknown>;
  const { queue, data, index } = fields;
  if (typeof queue === 'string') return { queue };
  if (typeof data === 'string' && typeof index === 'string') return { data, index };
  throw new QueueError(
    'bad-setting',
    `stdin: found ${line.slice(0, 80)}, expected {"queue": DIR} or {"data": FILE, "index": FILE}`,
  );
}

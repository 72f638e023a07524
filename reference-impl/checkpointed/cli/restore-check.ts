import { createHash } from 'node:crypto';
import { createInterface } from 'node:readline';
import { printLine } from '../../common/cli/output.js';
import { QueueError } from '../../common/platform/errors.js';
import { linux } from '../../common/platform/linux.js';
import { inlineHost } from '../checkpoint/writer-process.js';
import type { Host } from '../host.js';
import { CheckpointedQueue } from '../queue/checkpointed-queue.js';
import { countAside } from '../recovery/aside.js';
import { readState } from '../recovery/read-state.js';
import { DEFAULT_RUN_SETTINGS, pathsOf, readSettings } from '../settings.js';

/** A machine that syncs nothing. The caller only compares what a restore gives, and no power cut follows. */
const host: Host = {
  ...inlineHost,
  kernel: { ...linux, fsync: () => undefined, fdatasync: async () => undefined },
};

/** What a queue holds after its restore. */
interface RestoreCheckResult {
  live: number[];
  names: Record<number, string>;
  problems: string[];
  keptAside: number;
}

/**
 * Answers requests until stdin ends. Each request and each answer is one JSON object on one line:
 *
 *     {"queue": DIR}                restore the queue in that directory; its files change
 *
 *     {"live": [N, …], "names": {N: SHA-256, …}, "problems": […], "keptAside": N}
 *     {"error": "…"}                the queue cannot be restored
 *
 * @throws QueueError `bad-setting` for a line that is not a request.
 */
export async function restoreCheck(): Promise<void> {
  const numbers = new Map<string, number>();
  for await (const line of createInterface({ input: process.stdin })) {
    const directory = parseRequest(line);
    try {
      await printLine(await restore(directory, numbers));
    } catch (error) {
      await printLine({ error: error instanceof Error ? error.message : String(error) });
    }
  }
}

async function restore(directory: string, numbers: Map<string, number>): Promise<RestoreCheckResult> {
  const settings = readSettings(directory, linux);
  const queue = await CheckpointedQueue.open(directory, DEFAULT_RUN_SETTINGS, host);
  const restored = queue.figures().messages;
  await queue.close();
  // Read the files again instead of trusting the memory of the first restore: they are what the next start finds.
  const state = readState(directory, settings, linux);
  const result: RestoreCheckResult = { live: [], names: {}, problems: [], keptAside: 0 };
  for (const { body } of state.queues.flatMap((one) => one.messages())) {
    const name = createHash('sha256').update(body).digest('hex');
    let number = numbers.get(name);
    if (number === undefined) {
      number = numbers.size;
      numbers.set(name, number);
      result.names[number] = name;
    }
    result.live.push(number);
  }
  if (state.isControlLost) result.problems.push('no control record after the restore');
  result.problems.push(...state.damaged.map(({ what }) => `after the restore: ${what}`));
  if (result.live.length !== restored)
    result.problems.push(`restored ${restored} messages, a second restore would give ${result.live.length}`);
  result.keptAside = countAside(pathsOf(directory).aside, linux);
  return result;
}

function parseRequest(line: string): string {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    value = undefined;
  }
  const { queue } = Object(value) as Record<string, unknown>;
  if (typeof queue === 'string') return queue;
  throw new QueueError('bad-setting', `stdin: found ${line.slice(0, 80)}, expected {"queue": DIR}`);
}

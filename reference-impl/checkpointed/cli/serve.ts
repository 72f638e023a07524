import { printErrorLine, printLine } from '../../common/cli/output.js';
import { startHttpFront } from '../../common/http/front.js';
import { linux } from '../../common/platform/linux.js';
import { realHost } from '../checkpoint/writer-process.js';
import { CheckpointedQueue } from '../queue/checkpointed-queue.js';
import { httpStore } from '../queue/http-store.js';
import { maxMessageBytes, readSettings } from '../settings.js';

/** Flags of `serve`. Times are in milliseconds, sizes in bytes. */
export interface ServeOptions {
  queue: string;
  port: number;
  checkpoint: number;
  memory: number;
  lease: number;
}

/** Upper bound of the time in which a stopping server finishes its open requests, in milliseconds. */
const STOP_GRACE_MS = 5000;
const FAILED = 4;

/**
 * Serves a queue over HTTP until a stop signal. When the queue fails, it is unknown what is on the disk. The process then ends,
 * and the next start recovers.
 * @returns the exit code.
 */
export async function serve({
  queue: directory,
  port,
  checkpoint,
  memory,
  lease,
}: ServeOptions): Promise<number> {
  const stop = stopSignal();
  const maxBodyBytes = maxMessageBytes(readSettings(directory, linux));
  const run = { checkpointMs: checkpoint, memoryBytes: memory };
  const queue = await CheckpointedQueue.open(directory, run, realHost);
  const front = await startHttpFront(httpStore(queue), { port, leaseMs: lease, maxBodyBytes });
  await printLine({ event: 'ready', port: front.port });
  try {
    await Promise.race([stop, queue.failure]);
  } catch (error) {
    printErrorLine(`the queue has failed: ${error instanceof Error ? error.message : String(error)}`);
    return FAILED;
  }
  await front.stop(STOP_GRACE_MS);
  await queue.close();
  return 0;
}

/** Resolves at SIGTERM or SIGINT. */
function stopSignal(): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => resolve());
  });
}

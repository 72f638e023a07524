import { QueueError } from '../../common/platform/errors.js';
import { LockFile } from '../../common/platform/locks.js';
import { CONTROL_LOCK } from '../checkpoint/control.js';
import type { Host } from '../host.js';
import { countAside } from '../recovery/aside.js';
import { DEFAULT_RUN_SETTINGS, pathsOf, readSettings } from '../settings.js';
import { CheckpointedQueue } from './checkpointed-queue.js';

/**
 * Restores a queue as the server does at its start, and closes it.
 * @param fromNothing whether to rename the control file first, so that only slots and log are used.
 */
export async function rebuildQueue(
  directory: string,
  fromNothing: boolean,
  host: Host,
): Promise<{ queues: number; messages: number; keptAside: number }> {
  readSettings(directory, host.kernel);
  if (fromNothing) moveControlAside(directory, host);
  const queue = await CheckpointedQueue.open(directory, DEFAULT_RUN_SETTINGS, host);
  const { messages } = queue.figures();
  const queues = queue.queues().length;
  await queue.close();
  return { queues, messages, keptAside: countAside(pathsOf(directory).aside, host.kernel) };
}

function moveControlAside(directory: string, { kernel }: Host): void {
  const { control } = pathsOf(directory);
  if (!kernel.exists(control)) return;
  const lock = new LockFile(control, kernel);
  const isFree = lock.tryLock(CONTROL_LOCK.server);
  lock.close();
  if (!isFree) throw new QueueError('queue-in-use', `${directory} is in use: stop its server first`);
  kernel.rename(control, `${control}.old`);
}

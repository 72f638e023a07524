import { startHttpFront } from '../front.js';
import type { MessageStore } from '../store.js';

/** A store that confirms at once and keeps nothing, so that only the front is measured. */
const nothing: MessageStore = {
  commit: async () => ({ outcome: 'committed' }),
  take: () => undefined,
  putBack: () => undefined,
  onReady: () => undefined,
  queues: () => [],
  createQueue: async () => 'rejected',
  changeQueue: async () => 'rejected',
  deleteQueue: async () => 'rejected',
  status: () => ({}),
};

const front = await startHttpFront(nothing, { port: Number(process.argv[2] ?? 0) });
console.log(front.port);
process.on('SIGTERM', () => front.stop(1000));

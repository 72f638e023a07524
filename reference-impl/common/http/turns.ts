import type { IncomingMessage } from 'node:http';

/** Number of bodies that go on in one turn of the event loop. */
const BODIES_PER_TURN = 4;
/** Size from which on a piece belongs to a large body. */
const BULK_BYTES = 4 * 1024;

const waiting: IncomingMessage[] = [];
let isScheduled = false;

/**
 * Stops reading a large body that is still coming, until its turn. In one turn of the event loop, Node reads up to 2 MiB
 * from every connection. Without this limit, a small request would wait until Node has read from all large bodies.
 */
export function waitIfBulk(request: IncomingMessage, chunk: Buffer): void {
  // Small pieces of a paused body would pile up in Node, where no budget counts them.
  if (chunk.length < BULK_BYTES || request.isPaused()) return;
  request.pause();
  waiting.push(request);
  schedule();
}

function schedule(): void {
  if (isScheduled) return;
  isScheduled = true;
  setImmediate(() => {
    isScheduled = false;
    for (const request of waiting.splice(0, BODIES_PER_TURN)) request.resume();
    if (waiting.length > 0) schedule();
  });
}

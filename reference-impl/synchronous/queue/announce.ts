import type { Kernel } from '../platform/kernel.js';

/** One JSON line for the operator on stderr; the queue goes on. */
export function announce(kernel: Kernel, event: string, facts: object): void {
  kernel.say(JSON.stringify({ event, ...facts }));
}

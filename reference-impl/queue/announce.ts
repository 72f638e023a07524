import type { Kernel } from '../memory/kernel.js';
import type { Pair } from './pair.js';

/** One JSON line for the operator on stderr; the queue goes on. */
export function announce(kernel: Kernel, event: string, facts: object): void {
  kernel.say(JSON.stringify({ event, ...facts }));
}

/** Tells what a restore found that was not as it should be: a lost index, damaged records, messages that may come twice. */
export function announceRestore({ directories, restore, kernel }: Pair): void {
  if (!restore) return;
  const { indexWas, uncertain, damaged } = restore;
  if (indexWas === null && uncertain === 0 && damaged.length === 0) return;
  announce(kernel, 'restored', { directory: directories.directory, ...restore });
}

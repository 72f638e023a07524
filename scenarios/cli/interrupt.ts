import { SIGNAL_EXIT_CODES } from '../../conformance/exit-codes.js';
import { log } from '../host/console.js';

/** A signal that ends the program; the shell's code for it is 128 and its number. */
export interface Interrupts {
  readonly signal: AbortSignal;
  /** The exit code that the interruption means; undefined when there was none. */
  exitCode(): number | undefined;
}

/**
 * The first Ctrl-C asks everything to unwind, the second ends the program at once: what listens to `exit` still
 * kills what it has started, and what it cannot remove in that moment is left for `clean`.
 */
export function watchInterrupts(): Interrupts {
  const controller = new AbortController();
  let code: number | undefined;
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.on(name, () => {
      if (code !== undefined) process.exit(SIGNAL_EXIT_CODES[name]);
      code = SIGNAL_EXIT_CODES[name];
      log('interrupted: stopping everything that was started (interrupt again to stop at once)');
      controller.abort();
    });
  }
  return { signal: controller.signal, exitCode: () => code };
}

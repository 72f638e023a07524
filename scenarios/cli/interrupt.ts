import { SIGNAL_EXIT_CODES } from '../../conformance/exit-codes.js';
import { log } from '../host/console.js';

/** SIGINT and SIGTERM, as an abort signal and an exit code. */
export interface Interrupts {
  readonly signal: AbortSignal;
  /**
   * Returns the exit code for the signal that arrived: 128 plus its number. Returns undefined when none
   * arrived.
   */
  exitCode(): number | undefined;
}

/**
 * Watches for SIGINT and SIGTERM. The first one aborts the abort signal, so that everything is stopped in
 * order. The second one ends the program at once: the listeners of `exit` still kill the processes that were
 * started, and `clean` removes what they cannot remove.
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

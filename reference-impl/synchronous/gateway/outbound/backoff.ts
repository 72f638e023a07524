export interface Backoff {
  initialMs: number;
  maxMs: number;
}

/** The pause after so many failed tries in a row: it doubles with each, up to the longest; none before the first. */
export function backoffMs({ initialMs, maxMs }: Backoff, tries: number): number {
  return tries <= 0 ? 0 : Math.min(maxMs, initialMs * 2 ** Math.min(tries - 1, 40));
}

/**
 * May a message be tried now that failed so often, and last then? A last try in the future means that the clock was
 * set back; it must not hold the message up.
 */
export function isDue(backoff: Backoff, retryCount: number, lastRetryMs: number, nowMs: number): boolean {
  return retryCount === 0 || nowMs < lastRetryMs || nowMs - lastRetryMs >= backoffMs(backoff, retryCount);
}

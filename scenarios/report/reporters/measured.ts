import type { Outcome } from '../outcome.js';

/**
 * Forms that know only passed, failed and skipped would show a run that proved nothing as green: such a run gets one
 * more test, which fails.
 */
export function unmeasured({ verdict }: Outcome): string | undefined {
  return verdict === 'not-measured' ? 'the run measured what it set out to measure' : undefined;
}

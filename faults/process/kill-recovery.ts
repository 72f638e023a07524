import type { Fault, Ground, Injection } from '../fault.js';
import { hit, killServices, live, miss } from '../injection.js';
import { ALWAYS } from '../programs.js';
import { pauseFor } from '../waiting.js';

const MOST_KILLS_MORE = 3;

/** Kills all, starts again, and kills during the recovery, up to three times. */
export const killRecovery: Fault = {
  name: 'kill-recovery',
  family: 'kill',
  summary: 'SIGKILL to all, and again while they recover: a recovery is no less safe than a run',
  needs: { target: 'up', disk: 'any' },
  available: async () => ALWAYS,
  async inject(ground: Ground): Promise<Injection> {
    const killed = await killServices(live(ground));
    if (killed.length === 0) return miss('no service had a process');
    const more = 1 + ground.random.int(MOST_KILLS_MORE);
    const afterMs: number[] = [];
    for (let time = 0; time < more && !ground.signal.aborted; time++) {
      const fraction = ground.random.real();
      for (const service of ground.services) await service.start();
      await pauseFor(fraction * ground.usualRecoveryMs, ground.signal);
      afterMs.push(Math.round(fraction * ground.usualRecoveryMs));
      await killServices(ground.services);
    }
    return hit(
      `SIGKILL to ${killed.join(', ')}, and to all again ${afterMs.join(', ')} ms after a start`,
      'all-processes',
      killed,
    );
  },
  heal: async () => {},
};

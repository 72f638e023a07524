import type { Fault, FaultContext, Injection } from '../fault.js';
import { hit, killServices, liveServices, miss } from '../injection.js';
import { AVAILABLE } from '../programs.js';
import { sleep } from '../waiting.js';

const MAX_EXTRA_KILLS = 3;

/** Kills all services, starts them again, and kills them during the recovery, one to three times. */
export const killRecovery: Fault = {
  name: 'kill-recovery',
  family: 'kill',
  summary: 'SIGKILL to all, and again while they recover: a recovery is no less safe than a run',
  needs: { target: 'up', disk: 'any' },
  available: async () => AVAILABLE,
  async inject(context: FaultContext): Promise<Injection> {
    const killed = await killServices(liveServices(context));
    if (killed.length === 0) return miss('no service had a process');
    const extraKills = 1 + context.random.int(MAX_EXTRA_KILLS);
    const afterMs: number[] = [];
    for (let attempt = 0; attempt < extraKills && !context.signal.aborted; attempt++) {
      const fraction = context.random.real();
      for (const service of context.services) await service.start();
      await sleep(fraction * context.usualRecoveryMs, context.signal);
      afterMs.push(Math.round(fraction * context.usualRecoveryMs));
      await killServices(context.services);
    }
    return hit(
      `SIGKILL to ${killed.join(', ')}, and to all again ${afterMs.join(', ')} ms after a start`,
      'all-processes',
      killed,
    );
  },
  heal: async () => {},
};

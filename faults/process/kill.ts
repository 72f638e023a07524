import type { Fault, FaultContext, Injection } from '../fault.js';
import { hit, killServices, liveServices, miss, scopeOf } from '../injection.js';
import { AVAILABLE } from '../programs.js';
import { sample } from '../random-choice.js';

/** Kills all services, or some of them, with SIGKILL. The schedule of the round determines the moment. */
export const kill: Fault = {
  name: 'kill',
  family: 'kill',
  summary: 'SIGKILL to several services or all: nothing that was confirmed is only in a process',
  needs: { target: 'up', disk: 'any' },
  available: async () => AVAILABLE,
  async inject(context: FaultContext): Promise<Injection> {
    const up = liveServices(context);
    if (up.length === 0) return miss('no service had a process');
    const count = context.random.int(3) === 0 ? 1 + context.random.int(up.length) : up.length;
    const killed = await killServices(sample(context.random, up, count));
    if (killed.length === 0) return miss('every process was gone before the signal');
    return hit(`SIGKILL to ${killed.join(', ')}`, scopeOf(killed, context), killed);
  },
  heal: async () => {},
};

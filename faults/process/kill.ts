import type { Fault, FaultContext, Injection } from '../fault.js';
import { hit, killServices, liveServices, miss, namesOfHarmed, scopeOf } from '../injection.js';
import { noteDown } from '../link/down-nodes.js';
import { AVAILABLE } from '../programs.js';
import { sample } from '../random-choice.js';

/**
 * Kills all services, or some of them, with SIGKILL. The schedule of the round determines the moment. In a cluster, it
 * kills services of the nodes of the context.
 */
export const kill: Fault = {
  name: 'kill',
  family: 'kill',
  summary: 'SIGKILL to several services or all: nothing that was confirmed is only in a process',
  needs: { target: 'up', disk: 'any', nodes: 'scope' },
  available: async () => AVAILABLE,
  async inject(context: FaultContext): Promise<Injection> {
    const up = liveServices(context);
    if (up.length === 0) return miss('no service had a process');
    const count = context.random.int(3) === 0 ? 1 + context.random.int(up.length) : up.length;
    const chosen = sample(context.random, up, count);
    noteDown(
      context,
      context.nodes.filter((node) => node.services.every((service) => chosen.includes(service))),
    );
    const killed = await killServices(chosen);
    if (killed.length === 0) return miss('every process was gone before the signal');
    return {
      ...hit(`SIGKILL to ${killed.join(', ')}`, scopeOf(killed, context), killed),
      ...namesOfHarmed(context, killed),
    };
  },
  heal: async () => {},
};

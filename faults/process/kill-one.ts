import type { Fault, Ground, Injection } from '../fault.js';
import { hit, killServices, live, miss, scopeOf } from '../injection.js';
import { ALWAYS } from '../programs.js';

/**
 * SIGKILL to one service while the others live on. When all die the target starts anew; here those that are left must
 * notice, and free what the dead one held.
 */
export const killOne: Fault = {
  name: 'kill-one',
  family: 'kill',
  summary: 'SIGKILL to one service while the others live on: what it held is not held for ever',
  needs: { target: 'up', disk: 'any' },
  available: async () => ALWAYS,
  async inject(ground: Ground): Promise<Injection> {
    const up = live(ground);
    if (up.length === 0) return miss('no service had a process');
    const killed = await killServices([ground.random.pick(up)]);
    if (killed.length === 0) return miss('every process was gone before the signal');
    return hit(`SIGKILL to ${killed.join(', ')}`, scopeOf(killed, ground), killed);
  },
  heal: async () => {},
};

const NAMED = `${killOne.name}:`;

/** SIGKILL to one service by its name: `kill-one:worker-a`. Undefined when `fault` is no such name. */
export function killNamed(fault: string): Fault | undefined {
  const service = serviceNamedBy(fault);
  if (service === undefined) return undefined;
  return {
    ...killOne,
    name: fault,
    async inject(ground: Ground): Promise<Injection> {
      const killed = await killServices(ground.services.filter(({ name }) => name === service));
      if (killed.length === 0) return miss(`service ${service} had no process`);
      return hit(`SIGKILL to ${service}`, scopeOf(killed, ground), killed);
    },
  };
}

/** The service that a name such as `kill-one:worker-a` means. */
export function serviceNamedBy(fault: string): string | undefined {
  return fault.startsWith(NAMED) ? fault.slice(NAMED.length) : undefined;
}

import type { Fault, FaultContext, Injection } from '../fault.js';
import { hit, killServices, liveServices, miss, scopeOf } from '../injection.js';
import { AVAILABLE } from '../programs.js';

/**
 * Kills one service with SIGKILL while the others continue. After a kill of all services the target starts
 * from scratch. Here the remaining services must notice the death, and release everything that the dead
 * service held.
 */
export const killOne: Fault = {
  name: 'kill-one',
  family: 'kill',
  summary: 'SIGKILL to one service while the others live on: what it held is not held for ever',
  needs: { target: 'up', disk: 'any' },
  available: async () => AVAILABLE,
  async inject(context: FaultContext): Promise<Injection> {
    const up = liveServices(context);
    if (up.length === 0) return miss('no service had a process');
    const killed = await killServices([context.random.pick(up)]);
    if (killed.length === 0) return miss('every process was gone before the signal');
    return hit(`SIGKILL to ${killed.join(', ')}`, scopeOf(killed, context), killed);
  },
  heal: async () => {},
};

const NAME_PREFIX = `${killOne.name}:`;

/**
 * Makes the fault that kills the service in its name: `kill-one:worker-a`. Returns undefined for any other
 * name.
 */
export function killOneNamed(faultName: string): Fault | undefined {
  const service = serviceOfKillOne(faultName);
  if (service === undefined) return undefined;
  return {
    ...killOne,
    name: faultName,
    async inject(context: FaultContext): Promise<Injection> {
      const killed = await killServices(context.services.filter(({ name }) => name === service));
      if (killed.length === 0) return miss(`service ${service} had no process`);
      return hit(`SIGKILL to ${service}`, scopeOf(killed, context), killed);
    },
  };
}

/** Returns the service in a name such as `kill-one:worker-a`, or undefined for any other name. */
export function serviceOfKillOne(faultName: string): string | undefined {
  return faultName.startsWith(NAME_PREFIX) ? faultName.slice(NAME_PREFIX.length) : undefined;
}

import type { Fault, FaultContext, Injection } from '../fault.js';
import { hit, killServices, liveServices, miss, scopeOf } from '../injection.js';
import { AVAILABLE } from '../programs.js';

/**
 * SIGKILL to one service while the others live on. When all die the target starts anew; here those that are left must
 * notice, and free what the dead one held.
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

/** SIGKILL to one service by its name: `kill-one:worker-a`. Undefined when `fault` is no such name. */
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

/** The service that a name such as `kill-one:worker-a` means. */
export function serviceOfKillOne(faultName: string): string | undefined {
  return faultName.startsWith(NAME_PREFIX) ? faultName.slice(NAME_PREFIX.length) : undefined;
}

import type { Fault, FaultContext, Injection } from '../fault.js';
import { hit, killServices, liveServices, miss } from '../injection.js';
import { AVAILABLE } from '../programs.js';
import { logUniformInt, sample } from '../random-choice.js';
import { sleep } from '../waiting.js';

const MIN_PAUSE_MS = 20;
const MAX_PAUSE_MS = 2500;

/**
 * Stops a service and lets it continue later, as on a busy machine. Sometimes it also kills another service
 * meanwhile and starts it again before the stopped one continues: the stopped service then has outdated
 * knowledge of its partner.
 */
export const pause: Fault = {
  name: 'pause',
  family: 'pause',
  summary:
    'SIGSTOP, later SIGCONT: a partner that is silent is not dead, and one that comes back is not the same',
  needs: { target: 'up', disk: 'any' },
  available: async () => AVAILABLE,
  async inject(context: FaultContext): Promise<Injection> {
    const [pausedService, otherService] = sample(context.random, liveServices(context), 2);
    if (pausedService === undefined) return miss('no service had a process');
    const pauseMs = logUniformInt(context.random, MIN_PAUSE_MS, MAX_PAUSE_MS);
    const killsOther = otherService !== undefined && context.random.int(2) === 0;
    const signalled = await pausedService.signal('SIGSTOP');
    if (signalled === 0) return miss(`${pausedService.name} was gone before the signal`);
    let killed: string[] = [];
    if (killsOther) {
      await sleep(context.random.int(Math.min(pauseMs, 100)), context.signal);
      killed = await killServices([otherService]);
      await otherService.start();
    }
    await sleep(pauseMs, context.signal);
    const services = [pausedService.name, ...killed];
    if (killed.length === 0)
      return hit(`SIGSTOP to ${pausedService.name} for ${pauseMs} ms`, 'none', services);
    return hit(
      `SIGSTOP to ${pausedService.name} for ${pauseMs} ms, SIGKILL to ${killed.join(', ')} meanwhile`,
      'some-processes',
      services,
    );
  },
  async heal(context: FaultContext): Promise<void> {
    await Promise.all(context.services.map((service) => service.signal('SIGCONT')));
  },
};

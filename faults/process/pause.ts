import type { Fault, Ground, Injection } from '../fault.js';
import { hit, killServices, live, miss } from '../injection.js';
import { ALWAYS } from '../programs.js';
import { choose, spread } from '../random-choice.js';
import { pauseFor } from '../waiting.js';

const SHORTEST_MS = 20;
const LONGEST_MS = 2500;

/**
 * Stops a service and lets it go on later, as a busy machine does; or stops one, kills another, starts that again,
 * and only then lets the stopped one go on: what it then believes of its partner is out of date.
 */
export const pause: Fault = {
  name: 'pause',
  family: 'pause',
  summary:
    'SIGSTOP, later SIGCONT: a partner that is silent is not dead, and one that comes back is not the same',
  needs: { target: 'up', disk: 'any' },
  available: async () => ALWAYS,
  async inject(ground: Ground): Promise<Injection> {
    const [sleeper, other] = choose(ground.random, live(ground), 2);
    if (sleeper === undefined) return miss('no service had a process');
    const forMs = spread(ground.random, SHORTEST_MS, LONGEST_MS);
    const killOther = other !== undefined && ground.random.int(2) === 0;
    const stopped = await sleeper.signal('SIGSTOP');
    if (stopped === 0) return miss(`${sleeper.name} was gone before the signal`);
    let killed: string[] = [];
    if (killOther) {
      await pauseFor(ground.random.int(Math.min(forMs, 100)), ground.signal);
      killed = await killServices([other]);
      await other.start();
    }
    await pauseFor(forMs, ground.signal);
    const services = [sleeper.name, ...killed];
    if (killed.length === 0) return hit(`SIGSTOP to ${sleeper.name} for ${forMs} ms`, 'none', services);
    return hit(
      `SIGSTOP to ${sleeper.name} for ${forMs} ms, SIGKILL to ${killed.join(', ')} meanwhile`,
      'some-processes',
      services,
    );
  },
  async heal(ground: Ground): Promise<void> {
    await Promise.all(ground.services.map((service) => service.signal('SIGCONT')));
  },
};

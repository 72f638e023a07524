import type { Fault, Ground, Injection } from '../fault.js';
import { hit, killServices, live, miss, scopeOf } from '../injection.js';
import { ALWAYS } from '../programs.js';
import { choose } from '../random-choice.js';

/** SIGKILL to all services or to several of them; the driver's trigger says when. */
export const kill: Fault = {
  name: 'kill',
  family: 'kill',
  summary: 'SIGKILL to several services or all: nothing that was confirmed is only in a process',
  needs: { target: 'up', disk: 'any' },
  available: async () => ALWAYS,
  async inject(ground: Ground): Promise<Injection> {
    const up = live(ground);
    if (up.length === 0) return miss('no service had a process');
    const count = ground.random.int(3) === 0 ? 1 + ground.random.int(up.length) : up.length;
    const killed = await killServices(choose(ground.random, up, count));
    if (killed.length === 0) return miss('every process was gone before the signal');
    return hit(`SIGKILL to ${killed.join(', ')}`, scopeOf(killed, ground), killed);
  },
  heal: async () => {},
};

import type { Fault, Ground, Injection } from '../fault.js';
import { hit, miss } from '../injection.js';
import { ALWAYS } from '../programs.js';
import { spread } from '../random-choice.js';

const FILL_TIMEOUT_MS = 8000;
/** Messages get smaller with each rejection: after some it is full to the last byte. */
const FEWEST_REJECTIONS = 25;
const MOST_REJECTIONS = 60;

/** Nothing is taken from the target while producers go on, until it has no room and says so, again and again. */
export const full: Fault = {
  name: 'full',
  family: 'full',
  summary: 'receivers take nothing until the queue is full: it rejects clearly, and loses nothing',
  needs: { target: 'up', disk: 'any' },
  available: async () => ALWAYS,
  async inject(ground: Ground): Promise<Injection> {
    const rejections = spread(ground.random, FEWEST_REJECTIONS, MOST_REJECTIONS);
    ground.flood(true);
    const outcome = await ground.afterRejections(rejections, FILL_TIMEOUT_MS);
    if (outcome === 'timeout')
      return miss(`fewer than ${rejections} rejections in ${FILL_TIMEOUT_MS} ms of flood`);
    return hit(`flooded until ${rejections} messages were rejected`, 'none', []);
  },
  async heal(ground: Ground): Promise<void> {
    ground.flood(false);
  },
};

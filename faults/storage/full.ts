import type { Fault, FaultContext, Injection } from '../fault.js';
import { hit, miss } from '../injection.js';
import { AVAILABLE } from '../programs.js';
import { logUniformInt } from '../random-choice.js';

const FILL_TIMEOUT_MS = 8000;
/**
 * Number of rejections after which the queue counts as full to the last byte: after each rejection the
 * producers send smaller messages.
 */
const MIN_REJECTIONS = 25;
const MAX_REJECTIONS = 60;

/**
 * Lets producers send while receivers take nothing, until the target is full and has rejected many messages.
 */
export const full: Fault = {
  name: 'full',
  family: 'full',
  summary: 'receivers take nothing until the queue is full: it rejects clearly, and loses nothing',
  needs: { target: 'up', disk: 'any' },
  available: async () => AVAILABLE,
  async inject(context: FaultContext): Promise<Injection> {
    const rejections = logUniformInt(context.random, MIN_REJECTIONS, MAX_REJECTIONS);
    context.flood(true);
    const outcome = await context.waitForRejections(rejections, FILL_TIMEOUT_MS);
    if (outcome === 'timeout')
      return miss(`fewer than ${rejections} rejections in ${FILL_TIMEOUT_MS} ms of flood`);
    return hit(`flooded until ${rejections} messages were rejected`, 'none', []);
  },
  async heal(context: FaultContext): Promise<void> {
    context.flood(false);
  },
};

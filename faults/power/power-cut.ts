import type { Fault, FaultContext, Injection, Loss, Random } from '../fault.js';
import { EXIT_TIMEOUT_MS, hit, miss } from '../injection.js';
import { blocklogAvailability } from './blocklog-availability.js';

/**
 * The whole machine stops at once, as far as the target can tell: first its disk stops, in the middle of whatever it
 * does; then all of its processes are killed; then the disk is made what a power cut at that moment leaves.
 *
 * Between the first two steps the target may still answer, but only on the strength of what the disk had done before:
 * an answer that had to wait for the disk never comes. So whatever is confirmed must be on the disk. Freezing the
 * processes in between would gain nothing: a process that waits for the disk does not take a SIGSTOP.
 */
export const powerCut: Fault = {
  name: 'power-cut',
  family: 'power-cut',
  summary: 'everything not yet flushed is gone, kernel and all: confirmed means flushed',
  needs: { target: 'up', disk: 'power' },
  available: async () => blocklogAvailability(),
  async inject(context: FaultContext): Promise<Injection> {
    const disk = context.powerDisk;
    if (disk === undefined) return miss('the data is on a disk whose power cannot be cut');
    const names = context.services.map(({ name }) => name);
    const cutPoint = await disk.stop();
    try {
      if (!disk.killsTarget) {
        await Promise.all(context.services.map((service) => service.signal('SIGKILL')));
      }
    } finally {
      await disk.resume();
    }
    await Promise.all(context.services.map((service) => service.waitForExit(EXIT_TIMEOUT_MS)));
    const { detail } = await disk.cut(cutPoint, chooseLoss(context.random), context.random);
    return hit(detail, 'machine', names);
  },
  heal: async () => {},
};

/** Mostly the harshest: confirmed means flushed, and a drive may lose all that was not. */
function chooseLoss(random: Random): Loss {
  const dice = random.int(10);
  if (dice < 6) return 'all-lost';
  return dice < 8 ? 'prefix' : 'torn';
}

import type { Fault, FaultContext, Injection, Loss, Random } from '../fault.js';
import { describeCacheLoss } from '../files/loss-watch.js';
import { EXIT_TIMEOUT_MS, hit, miss } from '../injection.js';
import { blocklogAvailability } from './blocklog-availability.js';

/**
 * Simulates a power cut of the whole machine. First the disk stops, in the middle of its work. Then all
 * processes of the target are killed. Then the disk is put into the state that a power cut at that moment
 * leaves.
 *
 * Between the first two steps the target may still answer, but such an answer can rest only on earlier work
 * of the disk: an answer that has to wait for the disk never comes. So everything that is confirmed must be
 * on the disk. Stopping the processes in between would not help, because a process that waits for the disk
 * does not react to SIGSTOP.
 */
export const powerCut: Fault = {
  name: 'power-cut',
  family: 'power-cut',
  summary: 'everything not yet flushed is gone, kernel and all: confirmed means flushed',
  needs: { target: 'up', disk: 'power' },
  actsOnStoredData: true,
  available: async () => blocklogAvailability(),
  async inject(context: FaultContext): Promise<Injection> {
    const disk = context.powerDisk;
    if (disk === undefined) return miss('the data is on a disk whose power cannot be cut');
    const names = context.services.map(({ name }) => name);
    const stoppedMs = performance.now();
    const cutPoint = await disk.stop();
    try {
      if (!disk.killsTarget) {
        await Promise.all(context.services.map((service) => service.signal('SIGKILL')));
      }
    } finally {
      await disk.resume();
    }
    await Promise.all(context.services.map((service) => service.waitForExit(EXIT_TIMEOUT_MS)));
    // The target is dead and its page cache is still there: the files are what the target saw of them last.
    context.losses?.before();
    const { detail, lostPages } = await disk.cut(cutPoint, chooseLoss(context.random), context.random);
    const lostFiles = context.losses?.after(lostPages);
    const whole = lostFiles === undefined ? detail : `${detail}; ${describeCacheLoss(lostFiles)}`;
    // Nothing that the target wrote after the stop is on the disk. On a busy machine the steps after it take seconds.
    const failingMs = Math.round(performance.now() - stoppedMs);
    return { ...hit(whole, 'machine', names), failingMs, ...(lostFiles && { lostFiles }) };
  },
  heal: async () => {},
};

/**
 * Draws the loss. The harshest loss is the most frequent, because a drive may lose everything that was not
 * flushed.
 */
function chooseLoss(random: Random): Loss {
  const dice = random.int(10);
  if (dice < 6) return 'all-lost';
  return dice < 8 ? 'prefix' : 'torn';
}

import type { FailingWrites, Ground, Injection } from '../fault.js';
import { hit, killServices, miss } from '../injection.js';
import { spread } from '../random-choice.js';
import { until } from '../waiting.js';

/** Between the flood's beginning and the failure; so many confirmations, or so long. */
const BEFORE = 20;
const BEFORE_MS = 3000;
/** Until something has failed: ext4 commits every five seconds, whatever the target does. */
const WAIT_MS = 8000;
const LOOK_EVERY_MS = 50;
/** What is answered behind the failure rests on it; so many, or so long. */
const ANSWERS = 40;
const ANSWER_MS = 1500;

/**
 * Every write of the disk fails with EIO, the filesystem's own among them, which may give up then. After a while everything
 * is killed, the disk is unmounted, and mounted again when it is well: what could not be written is gone. In half of the
 * cases it is well already while the target lives, who may ask again and be told that all is well: the kernel reports a
 * failed write once, and then takes the page for clean.
 */
export async function failBelow(ground: Ground, disk: FailingWrites): Promise<Injection> {
  const { random, signal } = ground;
  const names = ground.services.map(({ name }) => name);
  ground.flood(true);
  await ground.afterConfirms(spread(random, 1, BEFORE), BEFORE_MS);
  const wellAgain = random.int(2) === 0;
  let failed = 0;
  const beginMs = performance.now();
  await disk.begin();
  try {
    const some = async () => (await disk.count()) > 0;
    if (await until(some, WAIT_MS, signal, LOOK_EVERY_MS)) {
      await ground.afterConfirms(spread(random, 1, ANSWERS), ANSWER_MS);
    }
    failed = await disk.count();
    if (wellAgain) {
      await disk.end();
      await ground.afterConfirms(spread(random, 1, ANSWERS), ANSWER_MS);
    }
  } finally {
    await killServices(ground.services);
    await disk.remount();
  }
  // Also when it was well again at last: what had failed by then is not written again.
  const failingMs = performance.now() - beginMs;
  if (failed === 0) return { ...miss(`no write in ${WAIT_MS} ms`, names), scope: 'machine', failingMs };
  const how = wellAgain ? 'then the disk was well again' : 'until the end';
  const what = `EIO from ${failed} writes of the disk (dm-flakey), ${how}; SIGKILL to all`;
  return { ...hit(what, 'machine', names), failingMs };
}

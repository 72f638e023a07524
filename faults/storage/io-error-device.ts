import type { FaultContext, Injection, WriteErrorInjector } from '../fault.js';
import { hit, killServices, miss } from '../injection.js';
import { logUniformInt } from '../random-choice.js';
import { until } from '../waiting.js';

/** Between the flood's beginning and the failure; so many confirmations, or so long. */
const MAX_CONFIRMS_BEFORE = 20;
const CONFIRMS_BEFORE_TIMEOUT_MS = 3000;
/** Until something has failed: ext4 commits every five seconds, whatever the target does. */
const FAILURE_TIMEOUT_MS = 8000;
const POLL_INTERVAL_MS = 50;
/** What is answered behind the failure rests on it; so many, or so long. */
const MAX_CONFIRMS_AFTER = 40;
const CONFIRMS_AFTER_TIMEOUT_MS = 1500;

/**
 * Every write of the disk fails with EIO, the filesystem's own among them, which may give up then. After a while everything
 * is killed, the disk is unmounted, and mounted again when it is well: what could not be written is gone. In half of the
 * cases it is well already while the target lives, who may ask again and be told that all is well: the kernel reports a
 * failed write once, and then takes the page for clean.
 */
export async function failDeviceWrites(context: FaultContext, disk: WriteErrorInjector): Promise<Injection> {
  const { random, signal } = context;
  const names = context.services.map(({ name }) => name);
  context.flood(true);
  await context.waitForConfirms(logUniformInt(random, 1, MAX_CONFIRMS_BEFORE), CONFIRMS_BEFORE_TIMEOUT_MS);
  const diskRecovers = random.int(2) === 0;
  let failed = 0;
  const beginMs = performance.now();
  await disk.begin();
  try {
    const hasFailed = async () => (await disk.failedWrites()) > 0;
    if (await until(hasFailed, FAILURE_TIMEOUT_MS, signal, POLL_INTERVAL_MS)) {
      await context.waitForConfirms(logUniformInt(random, 1, MAX_CONFIRMS_AFTER), CONFIRMS_AFTER_TIMEOUT_MS);
    }
    failed = await disk.failedWrites();
    if (diskRecovers) {
      await disk.end();
      await context.waitForConfirms(logUniformInt(random, 1, MAX_CONFIRMS_AFTER), CONFIRMS_AFTER_TIMEOUT_MS);
    }
  } finally {
    await killServices(context.services);
    await disk.remount();
  }
  // Also when it was well again at last: what had failed by then is not written again.
  const failingMs = performance.now() - beginMs;
  if (failed === 0)
    return { ...miss(`no write in ${FAILURE_TIMEOUT_MS} ms`, names), scope: 'machine', failingMs };
  const how = diskRecovers ? 'then the disk was well again' : 'until the end';
  const what = `EIO from ${failed} writes of the disk (dm-flakey), ${how}; SIGKILL to all`;
  return { ...hit(what, 'machine', names), failingMs };
}

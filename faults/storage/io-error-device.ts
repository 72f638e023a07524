import type { FaultContext, Injection, LostFile, WriteErrorInjector } from '../fault.js';
import { hit, killServices, miss } from '../injection.js';
import { logUniformInt } from '../random-choice.js';
import { until } from '../waiting.js';

/** Upper bound for the number of confirmations between the start of the flood and the failure. */
const MAX_CONFIRMS_BEFORE = 20;
/** Upper bound for the time between the start of the flood and the failure, in ms. */
const CONFIRMS_BEFORE_TIMEOUT_MS = 3000;
/**
 * Upper bound for the wait for the first failed write, in ms. ext4 commits every five seconds, whatever the
 * target does.
 */
const FAILURE_TIMEOUT_MS = 8000;
const POLL_INTERVAL_MS = 50;
/**
 * Upper bound for the number of confirmations after the failure. These confirmations may depend on the failed
 * writes.
 */
const MAX_CONFIRMS_AFTER = 40;
/** Upper bound for the wait for confirmations after the failure, in ms. */
const CONFIRMS_AFTER_TIMEOUT_MS = 1500;

/**
 * Makes every write to the disk fail with EIO, including the filesystem's own writes, so that the filesystem
 * may shut down. After a while all services are killed, the disk is unmounted, repaired, and mounted again:
 * data that could not be written is lost. In half of the cases the disk is repaired while the target still
 * runs. A sync that the target repeats then succeeds without writing the data, because the kernel reports a
 * failed write once and then treats the page as clean.
 */
export async function failDeviceWrites(context: FaultContext, disk: WriteErrorInjector): Promise<Injection> {
  const { random, signal } = context;
  const names = context.services.map(({ name }) => name);
  context.flood(true);
  await context.waitForConfirms(logUniformInt(random, 1, MAX_CONFIRMS_BEFORE), CONFIRMS_BEFORE_TIMEOUT_MS);
  const diskRecovers = random.int(2) === 0;
  let failed = 0;
  context.losses?.before();
  const beginMs = performance.now();
  let failedAtMs = beginMs;
  let destroyedFiles: LostFile[] = [];
  await disk.begin();
  try {
    const hasFailed = async () => (await disk.failedWrites()) > 0;
    if (await until(hasFailed, FAILURE_TIMEOUT_MS, signal, POLL_INTERVAL_MS)) {
      failedAtMs = performance.now();
      await context.waitForConfirms(logUniformInt(random, 1, MAX_CONFIRMS_AFTER), CONFIRMS_AFTER_TIMEOUT_MS);
    }
    failed = await disk.failedWrites();
    if (diskRecovers) {
      await disk.end();
      await context.waitForConfirms(logUniformInt(random, 1, MAX_CONFIRMS_AFTER), CONFIRMS_AFTER_TIMEOUT_MS);
    }
  } finally {
    await killServices(context.services);
    destroyedFiles = (context.losses?.after() ?? []).filter(({ messages }) => messages.length > 0);
    context.losses?.before();
    await disk.remount();
  }
  // This includes the time after a repair, because data whose write failed before is not written again.
  const failingMs = performance.now() - beginMs;
  if (failed === 0)
    return { ...miss(`no write in ${FAILURE_TIMEOUT_MS} ms`, names), scope: 'machine', failingMs };
  const how = diskRecovers ? 'then the disk was well again' : 'until the end';
  const what = `EIO from ${failed} writes of the disk (dm-flakey), ${how}; SIGKILL to all`;
  const lostFiles = context.losses?.after() ?? [];
  const calls = [{ service: 'the disk', call: 'write', path: null, error: 'EIO', count: failed }];
  const traces = { failed: { sinceMs: Math.round(performance.now() - failedAtMs), calls } };
  return { ...hit(what, 'machine', names), failingMs, destroyedFiles, lostFiles, ...traces };
}

import { statSync } from 'node:fs';
import { join } from 'node:path';
import type { Fault, Ground, Injection } from '../fault.js';
import { hit, killServices, miss } from '../injection.js';
import { straceAvailability } from '../programs.js';
import { spread } from '../random-choice.js';
import { SYNC_CALLS } from '../tracing/kinds.js';
import { Snapshot } from '../tracing/snapshot.js';
import type { Tampering } from '../tracing/strace.js';
import {
  isMessageFile,
  letGo,
  putBack,
  startTraced,
  stopTraced,
  traceesOf,
  traceLogOf,
  unsyncedFiles,
} from '../tracing/traced-target.js';

/**
 * What a crash of the whole machine may do to data that was written and not synced, without a machine to crash.
 *
 * Every service runs under strace, which shows the calls that sync, and lets them begin late. All are stopped and the data directory is copied;
 * they go on for a moment; they are stopped again and killed. A sector that changed in between and that no sync has
 * covered may be on the disk or not: a seeded choice of these is put back to what it was. What a sync has covered is
 * never touched, nor are sizes and names, so a target that confirms only what it has synced cannot lose anything.
 */
export const tear: Fault = {
  name: 'tear',
  family: 'tear',
  summary: 'SIGKILL to all, and sectors that no sync has covered put back: that is what a crash may leave',
  needs: { target: 'up', disk: 'any' },
  available: async () => straceAvailability(),
  async inject(ground: Ground): Promise<Injection> {
    await killServices(ground.services);
    await startTraced(ground, slowSyncs(ground));
    const names = ground.services.map(({ name }) => name);
    const alive = await ground.afterConfirms(1 + ground.random.int(20), WARM_UP_MS);
    const torn = alive === 'reached' ? await tearSome(ground) : undefined;
    await killServices(ground.services);
    if (alive === 'timeout') {
      return {
        ...miss(`no message was confirmed under strace in ${WARM_UP_MS} ms`, names),
        scope: 'all-processes',
      };
    }
    if (torn === undefined || torn.done === '') {
      return { ...miss(torn?.why ?? 'nothing was unsynced', names), scope: 'all-processes' };
    }
    return hit(`SIGKILL to all, unsynced sectors put back: ${torn.done}`, 'machine', names);
  },
  heal: async () => {},
};

/**
 * Every sync begins so much later than it was called. A disk may be as slow, and what was written and not synced is
 * found at a moment that is drawn: of a queue that syncs at once there would hardly be such a moment.
 */
function slowSyncs({ random }: Ground): Tampering {
  return { calls: SYNC_CALLS, what: `delay_enter=${spread(random, 1, SLOWEST_SYNC_MS) * 1000}`, when: '1+' };
}

const SLOWEST_SYNC_MS = 20;
const WARM_UP_MS = 6000;
const LONGEST_MS = 2500;
const LONGEST_WINDOW_MS = 250;
const MOST_CONFIRMS = 12;

/** Looks for a moment at which message bytes are unsynced, and tears there; leaves every service stopped or dead. */
async function tearSome(ground: Ground): Promise<{ done: string; why: string }> {
  const deadline = performance.now() + LONGEST_MS;
  const offsets = new Map<string, number>();
  let snapshot: Snapshot | undefined;
  let looks = 0;
  try {
    for (;;) {
      const tracees = traceesOf(ground);
      // The pids are known before: the stop must follow close upon the confirmation.
      if (looks > 0)
        await ground.afterConfirms(
          spread(ground.random, 1, MOST_CONFIRMS),
          1 + ground.random.int(LONGEST_WINDOW_MS),
        );
      if (!(await stopTraced(tracees))) return { done: '', why: 'the services did not stop at SIGSTOP' };
      const late = performance.now() > deadline || ground.signal.aborted;
      const found = snapshot === undefined ? [] : unsyncedFiles(ground, snapshot, offsets);
      if (typeof found === 'string') return { done: '', why: found };
      const worthIt = found.some(({ file, sectors }) => sectors.length > 0 && isMessageFile(ground, file));
      if (snapshot !== undefined && (worthIt || late)) {
        await killServices(ground.services);
        return {
          done: putBack(ground.random, snapshot, found),
          why: `nothing was unsynced at ${looks} moments`,
        };
      }
      if (snapshot === undefined)
        snapshot = new Snapshot(ground.dataDir, join(ground.scratchDir, 'tear-snapshot'));
      else snapshot.renew();
      for (const service of ground.services)
        offsets.set(service.name, statSync(traceLogOf(ground, service)).size);
      letGo(tracees);
      looks++;
    }
  } finally {
    snapshot?.remove();
  }
}

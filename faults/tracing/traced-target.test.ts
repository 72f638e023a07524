import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { FaultContext } from '../fault.js';
import { testDirectories, testFaultContext } from '../fixtures/fault-context.js';
import { Writer } from '../fixtures/writer.js';
import { killServices } from '../injection.js';
import { straceAvailability } from '../programs.js';
import { SYNC_CALLS } from './call-kinds.js';
import { Snapshot } from './snapshot.js';
import type { Tampering } from './strace.js';
import { startTraced, stopTraced, traceesOf, unsyncedFiles } from './traced-target.js';

const skip = straceAvailability().available ? false : 'strace is not installed';
const MIN_CONFIRMS = 5;

/**
 * Runs a writer under strace from an empty file on, and stops it after a few confirmations.
 * @returns the records that it confirmed, and the sectors that are reported as unsynced. A record is one
 *   sector long, so equal numbers mean the same bytes.
 */
async function traceWriter(
  t: Test,
  ignoresErrors: boolean,
  tampering?: Tampering,
): Promise<{ confirmed: number[]; unsynced: number[] }> {
  const { remove, ...directories } = testDirectories();
  const writer = new Writer(
    join(directories.dataDir, 'log'),
    join(directories.scratchDir, 'confirmed'),
    ignoresErrors,
  );
  t.teardown(async () => {
    await killServices([writer.service]);
    remove();
  });
  const context: FaultContext = testFaultContext({ ...directories, services: [writer.service] });
  const start = new Snapshot(directories.dataDir, join(directories.scratchDir, 'start'));
  const traced = await startTraced(context, tampering && { tampering });
  t.equal(await writer.waitForConfirms(MIN_CONFIRMS, 20_000), 'reached');
  t.ok(await stopTraced(traceesOf(context)), 'the writer is stopped');
  const files = unsyncedFiles(context, start, new Map(), traced);
  if (typeof files === 'string') throw new Error(files);
  return { confirmed: writer.confirmed(), unsynced: files.flatMap(({ sectors }) => sectors) };
}

t.test('a record that was confirmed after its sync is not reported as unsynced', { skip }, async (t) => {
  const { confirmed, unsynced } = await traceWriter(t, false);
  t.same(
    unsynced.filter((sector) => confirmed.includes(sector)),
    [],
  );
});

t.test('every record is reported as unsynced when each sync fails', { skip }, async (t) => {
  const tampering = { calls: SYNC_CALLS, what: 'error=EIO', when: '1+' } as const;
  const { confirmed, unsynced } = await traceWriter(t, true, tampering);
  t.same(
    confirmed.filter((number) => !unsynced.includes(number)),
    [],
  );
});

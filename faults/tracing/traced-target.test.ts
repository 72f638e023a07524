import { spawnSync } from 'node:child_process';
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { FaultContext } from '../fault.js';
import { TestService, testDirectories, testFaultContext, testRandom } from '../fixtures/fault-context.js';
import { Writer } from '../fixtures/writer.js';
import { killServices } from '../injection.js';
import { straceAvailability } from '../programs.js';
import { allThreadsInState } from '../thread-state.js';
import { until } from '../waiting.js';
import { SYNC_CALLS } from './call-kinds.js';
import { Snapshot } from './snapshot.js';
import type { Tampering } from './strace.js';
import { revertSome, startTraced, stopTraced, traceesOf, unsyncedFiles } from './traced-target.js';

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
  t.ok(await stopTraced(() => traceesOf(context)), 'the writer is stopped');
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

t.test('a child that was forked after its parent was listed is stopped too', { skip }, async (t) => {
  const { remove, ...directories } = testDirectories();
  const go = join(directories.scratchDir, 'go');
  const program = 'while [ ! -e "$0" ]; do sleep 0.01; done; tail -f /dev/null & wait';
  const service = new TestService('forks', ['/bin/sh', '-c', program, go]);
  t.teardown(async () => {
    await killServices([service]);
    remove();
  });
  const context = testFaultContext({ ...directories, services: [service] });
  await startTraced(context);
  t.ok(await until(() => traceesOf(context).some((pid) => nameOf(pid) === 'sh'), 20_000), 'it runs');
  const known = traceesOf(context).filter((pid) => nameOf(pid) === 'sh');
  writeFileSync(go, '');
  const child = () => traceesOf(context).find((pid) => nameOf(pid) === 'tail');
  t.ok(await until(() => child() !== undefined, 20_000), 'it forks');
  const stopped = (await stopTraced(() => traceesOf(context), known)) ?? [];
  const pid = child() ?? 0;
  t.ok(stopped.includes(pid), `${stopped} hold ${pid}`);
  t.ok(allThreadsInState(pid, 'tT'), 'the child is stopped');
});

const VFORKS = '#include <unistd.h>\nint main(void) { if (vfork() == 0) for (;;) pause(); return 0; }';

t.test(
  'the parent of a vfork counts as stopped, although it waits for its stopped child',
  { skip },
  async (t) => {
    const { remove, ...directories } = testDirectories();
    const program = join(directories.scratchDir, 'vforks');
    const service = new TestService('vforks', [program]);
    t.teardown(async () => {
      await killServices([service]);
      remove();
    });
    if (spawnSync('cc', ['-x', 'c', '-o', program, '-'], { input: VFORKS }).status !== 0)
      return t.pass('no C compiler is installed');
    const context = testFaultContext({ ...directories, services: [service] });
    await startTraced(context);
    const pids = () => traceesOf(context).filter((pid) => nameOf(pid) === 'vforks');
    t.ok(await until(() => pids().length === 2 && pids().some((pid) => allThreadsInState(pid, 'D')), 20_000));
    t.same(new Set(await stopTraced(() => traceesOf(context))), new Set(pids()));
    return;
  },
);

t.test('a process that is listed only when the others have stopped is stopped too', async (t) => {
  // Numbers larger than any process id of Linux: such a process counts as stopped.
  const [parent, child] = [2 ** 30 + 1, 2 ** 30 + 2];
  const lists = [[parent], [parent, child], [parent, child]];
  t.same(await stopTraced(() => lists.shift() ?? [], [parent]), [parent, child]);
  t.same(lists, [], 'the last scan found nothing new');
  let next = child;
  t.equal(await stopTraced(() => [next++]), undefined, 'children that are born for ever end it');
});

function nameOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'latin1').trim();
  } catch {
    return '';
  }
}

t.test('a file that was replaced or deleted since it was found is not reverted', async (t) => {
  const { dataDir, scratchDir, remove } = testDirectories();
  t.teardown(remove);
  const names = ['kept', 'replaced', 'deleted'];
  const path = (name: string) => join(dataDir, name);
  const snapshot = new Snapshot(dataDir, join(scratchDir, 'copies'));
  for (const name of names) writeFileSync(path(name), 'unsynced');
  const found = names.map((file) => ({
    ...{ file, sectors: [0], identity: snapshot.identityOf(file), remade: 'no' as const },
  }));
  rmSync(path('deleted'));
  writeFileSync(path('new'), 'synced');
  renameSync(path('new'), path('replaced'));
  const all = { ...testRandom(1), int: () => 0 };
  t.equal(revertSome(all, snapshot, found), '1 of 1 in kept');
  t.equal(readFileSync(path('kept'), 'latin1'), '\0'.repeat(8));
  t.equal(readFileSync(path('replaced'), 'latin1'), 'synced');
  t.equal(revertSome(all, snapshot, found.slice(1)), '', 'nothing is left to revert');
});

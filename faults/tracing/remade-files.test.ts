import { statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { FaultContext } from '../fault.js';
import { TestService, testDirectories, testFaultContext, testRandom } from '../fixtures/fault-context.js';
import { killServices } from '../injection.js';
import { straceAvailability } from '../programs.js';
import { until } from '../waiting.js';
import { isScratch } from './remade-files.js';
import { Snapshot } from './snapshot.js';
import {
  noteRecovery,
  resumeTraced,
  revertSome,
  startTraced,
  stopTraced,
  traceesOf,
  traceLogOf,
  unsyncedFiles,
  whyNothingCounts,
} from './traced-target.js';

const skip = straceAvailability().available ? false : 'strace is not installed';

/**
 * Program that treats each of its files in another way at its start, and then writes to all of them again and again. It
 * reports each round in a file outside its data. It truncates the last file when the test makes another file there.
 */
const PROGRAM = `
const fs = require('node:fs');
const [dir, said] = process.argv.slice(1);
const fds = {
  remade: fs.openSync(dir + '/remade', 'w'),
  synced: fs.openSync(dir + '/synced', 'w'),
  named: fs.openSync(dir + '/named.tmp', 'r+'),
  kept: fs.openSync(dir + '/kept', 'r+'),
};
fs.readFileSync(dir + '/read');
fds.read = fs.openSync(dir + '/read', 'w');
const header = fs.openSync(dir + '/header', 'r+');
fs.ftruncateSync(header, 1);
fds.header = header;
let round = 0;
setInterval(() => {
  if (fds.late === undefined && fs.existsSync(said + '.go')) fds.late = fs.openSync(dir + '/late', 'w');
  for (const [name, fd] of Object.entries(fds)) fs.writeSync(fd, String(round).padEnd(512, '.'), name === 'header' ? 1 : 0);
  if (round === 1) fs.fdatasyncSync(fds.synced);
  fs.appendFileSync(said, round++ + '\\n');
}, 5);
`;
const FILES = ['remade', 'synced', 'named.tmp', 'kept', 'read', 'header', 'late'];

for (const showsReads of [true, false]) {
  t.test(
    `a file is made anew when its start truncates it unread, in a trace ${showsReads ? 'with' : 'without'} reads`,
    { skip },
    async (t) => {
      const { remove, ...directories } = testDirectories();
      const { dataDir, scratchDir } = directories;
      const said = join(scratchDir, 'said');
      for (const file of FILES) writeFileSync(join(dataDir, file), 'x'.repeat(2000));
      writeFileSync(said, '');
      const service = new TestService('a', [process.execPath, '-e', PROGRAM, dataDir, said]);
      t.teardown(async () => {
        await killServices([service]);
        remove();
      });
      const context: FaultContext = testFaultContext({
        ...directories,
        services: [service],
        scratchFiles: ['*.tmp'],
      });
      /** Waits until the program has reported more rounds. One takes at least two bytes, and at most four here. */
      const moreRounds = () => {
        const fromBytes = statSync(said).size;
        return until(() => statSync(said).size >= fromBytes + 16, 20_000);
      };
      const start = await startTraced(context, { showsReads });
      t.ok(await moreRounds());
      noteRecovery(context, start);
      writeFileSync(`${said}.go`, '');
      t.ok(await moreRounds(), 'the file that is truncated later is so after the recovery');
      t.ok(await stopTraced(() => traceesOf(context)));
      const snapshot = new Snapshot(dataDir, join(scratchDir, 'copies'));
      const offsets = new Map([['a', statSync(traceLogOf(context, service)).size]]);
      resumeTraced(traceesOf(context));
      t.ok(await moreRounds());
      t.ok(await stopTraced(() => traceesOf(context)));
      const unsynced = unsyncedFiles(context, snapshot, offsets, start);
      if (typeof unsynced === 'string') throw new Error(unsynced);
      t.same(Object.fromEntries(unsynced.map(({ file, remade }) => [file, remade])), {
        remade: showsReads ? 'yes' : 'perhaps',
        'named.tmp': 'yes',
        header: showsReads ? 'yes' : 'perhaps',
        synced: 'no',
        kept: 'no',
        read: showsReads ? 'no' : 'perhaps',
        late: 'no',
      });
    },
  );
}

t.test('the shared memory of a SQLite database is made anew, and no other file of that name', async (t) => {
  const { dataDir, remove } = testDirectories();
  t.teardown(remove);
  writeFileSync(join(dataDir, 'queue.db'), 'SQLite format 3\0...');
  writeFileSync(join(dataDir, 'other'), 'no database');
  const scratch = (file: string) => isScratch({ dataDir, scratchFiles: ['lock/**'] }, file);
  t.ok(scratch('queue.db-shm'));
  t.ok(scratch('lock/a'));
  for (const file of ['queue.db', 'queue.db-wal', 'other-shm', 'missing-shm']) t.notOk(scratch(file), file);
});

t.test('sectors of files that are made anew are reverted only beside others', async (t) => {
  const { dataDir, scratchDir, remove } = testDirectories();
  t.teardown(remove);
  for (const file of ['log', 'shm']) writeFileSync(join(dataDir, file), Buffer.alloc(2048, 1));
  const snapshot = new Snapshot(dataDir, join(scratchDir, 'copies'));
  const sectors = [0, 1, 2, 3];
  const [log, shm] = [
    { file: 'log', sectors, identity: snapshot.identityOf('log'), remade: 'no' as const },
    { file: 'shm', sectors, identity: snapshot.identityOf('shm'), remade: 'yes' as const },
  ];
  let onlyLog = 0;
  for (let seed = 1; seed <= 60; seed++) {
    const done = revertSome(testRandom(seed), snapshot, [log, shm]);
    t.match(done, /\d of 4 in log(?:,|$)/, `seed ${seed}`);
    if (!done.includes('shm')) onlyLog++;
    else t.match(done, /in shm \(made anew at each start\)/);
  }
  t.ok(onlyLog > 0 && onlyLog < 60, 'the choice of files is random');
  writeFileSync(join(dataDir, 'shm'), Buffer.alloc(2048, 2));
  t.equal(revertSome(testRandom(1), snapshot, [shm]), '');
  t.same(snapshot.changedSectors('shm'), sectors, 'nothing was reverted');
  t.match(whyNothingCounts([shm], 'nothing'), /only files that the target makes anew at each start.*: shm$/);
  t.equal(whyNothingCounts([], 'nothing'), 'nothing');
});

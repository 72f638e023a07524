import t from 'tap';
import { EMPTIED_FILE, HistoryBuilder } from '../../conformance/fixtures/history-builder.js';
import type { LostFile } from '../../conformance/history/events.js';
import type { FileHabit } from '../../faults/tracing/file-habits.js';
import { lossCauses } from './loss-causes.js';

const HABIT: FileHabit = {
  pattern: 'base-#.log',
  writers: ['compactor'],
  syncers: ['compactor'],
  renamedFrom: ['base.tmp'],
  renamers: ['compactor'],
};

/** Names the causes when message 1 was confirmed, and a power cut took something from these files. */
function causesAfter(lostFiles: LostFile[], habits: FileHabit[] = [], destroyedFiles: LostFile[] = []) {
  const { events } = new HistoryBuilder()
    .start('power-cut')
    .submit('1')
    .crash({ fault: 'power-cut', scope: 'machine', lostFiles, destroyedFiles })
    .drain();
  return lossCauses(events, habits);
}

t.test('an undone rename is named although the bytes of the message are on the disk', async (t) => {
  const renamed = {
    ...EMPTIED_FILE,
    sizeAfterBytes: 23512,
    nameAfter: 'base.tmp',
    cacheBytes: 0,
    messages: [],
  };
  const [cause] = causesAfter([renamed], [HABIT]);
  t.match(cause, {
    kind: 'directory-not-synced',
    file: 'base-14.log',
    service: 'compactor',
    messages: ['1'],
  });
  t.match(
    cause?.sentence,
    /^compactor renames base\.tmp to base-14\.log and does not sync the data directory before it confirms: power-cut 1 undid the rename/,
  );
  t.match(cause?.fix, /open the data directory and call fsync on it, after the rename/);
  t.match(cause?.facts.join('\n'), /the data directory is never synced/);
});

t.test('a file in a folder is gone when its folder was not synced', async (t) => {
  const gone = { ...EMPTIED_FILE, file: 'new/7.msg', sizeAfterBytes: null };
  const [cause] = causesAfter([gone]);
  t.equal(cause?.kind, 'directory-not-synced');
  t.match(cause?.sentence, /the target makes new\/7\.msg and does not sync the directory new/);
});

t.test('a directory that is synced at other times does not contradict its cause', async (t) => {
  const renamed = { ...EMPTIED_FILE, nameAfter: 'base.tmp', cacheBytes: 0, messages: [] };
  const folder = { pattern: '.', writers: [], syncers: ['compactor'], renamedFrom: [], renamers: [] };
  const [cause] = causesAfter([renamed], [{ ...HABIT, writes: 284, syncs: 142 }, folder]);
  t.match(cause?.kind, 'directory-not-synced');
  const facts = cause?.facts.join('\n');
  t.match(
    facts,
    /the data directory is synced by compactor, but not between the rename and the confirmation$/m,
  );
  t.match(
    facts,
    /the files base-#\.log are written by compactor 284 times in all, synced by compactor 142 times in all/,
  );
});

t.test('a fix names every sync that was missing', async (t) => {
  const [gone] = causesAfter([{ ...EMPTIED_FILE, sizeAfterBytes: null }]);
  t.match(gone?.fix, /^call fsync on base-14\.log, then open the data directory/);
  const [renamed] = causesAfter([{ ...EMPTIED_FILE, nameAfter: 'base.tmp' }]);
  t.match(renamed?.sentence, /renames base\.tmp to base-14\.log and syncs neither the file nor the data dir/);
  t.match(renamed?.fix, /^call fsync on base\.tmp before the rename, and open the data directory/);
});

t.test('an undone rename is not blamed when lost bytes of another file may be the cause', async (t) => {
  const renamed = { ...EMPTIED_FILE, file: 'index', nameAfter: 'index.tmp', cacheBytes: 0, messages: [] };
  const log = { ...EMPTIED_FILE, messages: [] };
  t.match(causesAfter([renamed, log]), [{ kind: 'unknown', fix: '' }]);
  t.match(causesAfter([renamed, { ...log, messages: ['2'] }]), [{ kind: 'directory-not-synced' }]);
});

t.test('a loss without a crash is not blamed on the start', async (t) => {
  const { events } = new HistoryBuilder().start('kill').submit('1').drain();
  const [cause] = lossCauses(events, []);
  t.match(cause, { kind: 'not-recovered', fix: /^no crash explains it/ });
});

t.test('bytes that no sync covered are named, with how often the file is synced', async (t) => {
  t.match(
    causesAfter([EMPTIED_FILE])[0]?.sentence,
    /before a sync covers their bytes in base-14\.log: power-cut 1 took 23,512/,
  );
  t.match(
    causesAfter([EMPTIED_FILE], [{ ...HABIT, syncers: [] }])[0]?.sentence,
    /compactor writes base-14\.log and never syncs it/,
  );
  t.match(
    causesAfter([EMPTIED_FILE], [{ ...HABIT, writes: 152, syncs: 1 }])[0]?.sentence,
    /compactor syncs base-14\.log once in 152 writes/,
  );
  const inDrive = { ...EMPTIED_FILE, cacheBytes: 0, driveBytes: 23512 };
  t.match(causesAfter([inDrive])[0]?.sentence, /before a flush of the drive covers base-14\.log/);
});

t.test('a file that the target removed itself is not blamed on the cut', async (t) => {
  t.match(causesAfter([], [], [EMPTIED_FILE]), [{ kind: 'target-removed-it', file: 'base-14.log' }]);
});

t.test(
  'a message that is lost although no file lost anything is one that the start does not find',
  async (t) => {
    t.match(causesAfter([]), [{ kind: 'not-recovered', file: '', messages: ['1'] }]);
  },
);

t.test('the same file at several cuts is one cause, and a run without a loss has none', async (t) => {
  const cut = { fault: 'power-cut', scope: 'machine' as const };
  const { events } = new HistoryBuilder()
    .start('power-cut')
    .submit('1')
    .crash({ ...cut, lostFiles: [EMPTIED_FILE] })
    .submit('2')
    .crash({ ...cut, lostFiles: [{ ...EMPTIED_FILE, file: 'base-15.log', messages: ['2'] }] })
    .drain();
  const causes = lossCauses(events, []);
  t.match(causes, [{ messages: ['1', '2'] }]);
  t.equal(causes.length, 1);
  t.match(causes[0]?.sentence, /2 injections took 2 messages in this way/);
  t.same(
    lossCauses(
      new HistoryBuilder().start('kill').submit('1').crash().deliver('1').consume().drain().events,
      [],
    ),
    [],
  );
});

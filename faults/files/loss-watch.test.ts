import { appendFileSync, mkdirSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import type { LostFile, PowerDisk } from '../fault.js';
import { testDirectories, testFaultContext } from '../fixtures/fault-context.js';
import { powerCut } from '../power/power-cut.js';
import { describeCacheLoss, LossWatch, pageHash } from './loss-watch.js';

/** Time that the cut of the fake disk takes, in ms. */
const CUT_MS = 20;

/** Makes a data directory with two files, and a watch that takes every `<word>` in a file for a message. */
function watched(t: { teardown(remove: () => void): void }) {
  const { dataDir, scratchDir, remove } = testDirectories();
  t.teardown(remove);
  const file = (name: string) => join(dataDir, name);
  writeFileSync(file('base.log'), `<one>${'.'.repeat(5000)}<two>`);
  mkdirSync(file('sub'));
  writeFileSync(file('sub/seg.log'), '<three>');
  const watch = new LossWatch(dataDir, (bytes) => bytes.toString('latin1').match(/<\w+>/g) ?? []);
  const crash = (effect: () => void, lostPages?: ReadonlySet<string>): LostFile[] => {
    watch.before();
    effect();
    return watch.after(lostPages);
  };
  return { dataDir, scratchDir, file, watch, crash };
}

t.test('a crash that takes nothing lists no file', async (t) => {
  const { crash } = watched(t);
  t.same(
    crash(() => {}),
    [],
  );
});

t.test(
  'a file that a crash left empty is listed with its size, its messages and the bytes that only the cache had',
  async (t) => {
    const { file, crash } = watched(t);
    t.same(
      crash(() => truncateSync(file('base.log'), 0)),
      [
        {
          file: 'base.log',
          sizeBytes: 5010,
          sizeAfterBytes: 0,
          nameAfter: null,
          cacheBytes: 5010,
          driveBytes: 0,
          messages: ['<one>', '<two>'],
        },
      ],
    );
  },
);

t.test('of a file that lost its end, only the messages in the end are lost', async (t) => {
  const { file, crash } = watched(t);
  t.match(
    crash(() => truncateSync(file('base.log'), 5000)),
    [{ sizeAfterBytes: 5000, messages: ['<two>'] }],
  );
});

t.test('a file that is gone, and one whose rename was undone, are told apart', async (t) => {
  const { file, crash } = watched(t);
  const gone = crash(() => rmSync(file('sub/seg.log')));
  t.match(gone, [{ file: 'sub/seg.log', sizeAfterBytes: null, nameAfter: null, messages: ['<three>'] }]);
  const renamed = crash(() => renameSync(file('base.log'), file('base.tmp')));
  t.match(renamed, [{ file: 'base.log', nameAfter: 'base.tmp', cacheBytes: 0, messages: [] }]);
});

t.test('a message that is still in another file is not lost', async (t) => {
  const { file, crash } = watched(t);
  writeFileSync(file('old.log'), '<one>');
  t.match(
    crash(() => truncateSync(file('base.log'), 0)),
    [{ messages: ['<two>'] }],
  );
});

t.test('bytes that were put back within a file of the same size are found', async (t) => {
  const { file, crash } = watched(t);
  const lost = crash(() => writeFileSync(file('base.log'), `<one>${'.'.repeat(5000)}\0\0\0\0\0`));
  t.match(lost, [{ sizeBytes: 5010, sizeAfterBytes: 5010, cacheBytes: 5, messages: ['<two>'] }]);
});

t.test('bytes of a page that the drive had in its cache are counted for the drive', async (t) => {
  const { file, crash } = watched(t);
  const page = Buffer.from('<three>');
  const lost = crash(() => truncateSync(file('sub/seg.log'), 0), new Set([pageHash(page, 0)]));
  t.match(lost, [{ driveBytes: 7, cacheBytes: 0 }]);
  t.equal(describeCacheLoss(lost), 'nothing was only in the page cache');
});

t.test('a file that grew between two crashes is read again at the second', async (t) => {
  const { file, crash } = watched(t);
  crash(() => {});
  appendFileSync(file('base.log'), '<four>');
  t.match(
    crash(() => truncateSync(file('base.log'), 5010)),
    [{ messages: ['<four>'] }],
  );
});

t.test(
  'a file that is lost before the first call of `before` is not listed, and `after` alone lists no file',
  async (t) => {
    const { file, watch } = watched(t);
    rmSync(file('base.log'));
    t.same(watch.after(), []);
  },
);

t.test(
  'a power cut says which bytes were only in the page cache, although nothing was in the cache of the drive',
  async (t) => {
    const { dataDir, scratchDir, file, watch } = watched(t);
    const powerDisk: PowerDisk = {
      backend: 'blocklog',
      killsTarget: false,
      stop: () => 0,
      resume: () => {},
      cut: async () => {
        truncateSync(file('base.log'), 0);
        await sleep(CUT_MS);
        return {
          unflushedWrites: 0,
          detail:
            'power cut after 7 requests to the disk, 7 of them flushed, the cache of the drive was empty',
          tookMs: { drop: 0, image: 0, record: 0, mount: 0 },
        };
      },
      writeErrors: undefined,
    };
    const cut = await powerCut.inject(testFaultContext({ dataDir, scratchDir, powerDisk, losses: watch }));
    t.match(
      cut.detail,
      /the cache of the drive was empty; 5010 bytes were only in the page cache and are gone: 5010 of base.log$/,
    );
    t.ok(cut.failingMs >= CUT_MS - 1, 'nothing reached the disk since it stopped');
    t.match(cut.lostFiles, [{ file: 'base.log', messages: ['<one>', '<two>'] }]);
  },
);

t.test('a file that lost only its name has lost no bytes', async (t) => {
  const gone = {
    file: 'spool/7.msg',
    sizeBytes: 10,
    sizeAfterBytes: null,
    nameAfter: null,
    driveBytes: 0,
    messages: [],
  };
  const named = describeCacheLoss([{ ...gone, cacheBytes: 0 }]);
  t.equal(named, 'names of files are gone that no sync of their directory had covered: spool/7.msg');
  t.equal(
    describeCacheLoss([
      { ...gone, cacheBytes: 0 },
      { ...gone, file: 'spool/8.tmp', cacheBytes: 10 },
    ]),
    '10 bytes were only in the page cache and are gone: the name spool/7.msg, 10 of spool/8.tmp',
  );
});

import t from 'tap';
import { messageEvents } from '../checkers/message-events.js';
import { EMPTIED_FILE, HistoryBuilder } from '../fixtures/history-builder.js';
import type { LostFile } from './events.js';
import { describeLostBytes, describeLostFile, lossOf } from './lost-files.js';

const other: LostFile = { ...EMPTIED_FILE, file: 'other', messages: ['9'] };

/** Makes a history of three power cuts after one message, each with the files that it took. */
function cuts(...lost: LostFile[][]) {
  const history = new HistoryBuilder().start('power-cut').submit('1');
  for (const files of lost) history.crash({ fault: 'power-cut', scope: 'machine', lostFiles: files });
  return history;
}

t.test(
  'the injection that took a message is the one that took it out of a file, not the first',
  async (t) => {
    const { events } = cuts([other], [EMPTIED_FILE], [other]).drain();
    const loss = lossOf(events, '1');
    t.equal(loss?.fault.injection, 2);
    t.same(loss?.files, [EMPTIED_FILE]);
  },
);

t.test('the events of a lost message end with the injection that took it', async (t) => {
  const told = messageEvents(cuts([other], [EMPTIED_FILE], [other]).drain().events, '1');
  t.match(told.at(-1), { kind: 'fault', injection: 2 });
});

t.test(
  'for a message that was in no readable file, it is the first crash that took anything after its last delivery',
  async (t) => {
    const history = cuts([other]).deliver('1').refuse(false);
    history.crash({ fault: 'kill' }).crash({ fault: 'power-cut', scope: 'machine', lostFiles: [other] });
    const loss = lossOf(history.events, '1');
    t.equal(loss?.fault.injection, 3);
    t.same(loss?.files, []);
  },
);

t.test('a consumed message, and one that is not there, have no loss', async (t) => {
  t.equal(lossOf(new HistoryBuilder().submitAndConsume('1').crash().events, '1'), undefined);
  t.equal(lossOf(cuts([other]).events, '2'), undefined);
});

t.test('a file is described by what became of it, and its bytes by the cache that had them', async (t) => {
  t.equal(describeLostFile(EMPTIED_FILE), 'base-14.log: 0 bytes, was 23512');
  t.equal(describeLostFile({ ...EMPTIED_FILE, sizeAfterBytes: null }), 'base-14.log: gone, was 23512 bytes');
  t.equal(
    describeLostFile({ ...EMPTIED_FILE, sizeAfterBytes: 23512, cacheBytes: 512 }),
    'base-14.log: 512 of its 23512 bytes are lost',
  );
  t.equal(
    describeLostFile({ ...EMPTIED_FILE, sizeAfterBytes: 23512, cacheBytes: 0, nameAfter: 'base.tmp' }),
    'base-14.log: has its old name base.tmp again, 23512 bytes, was 23512',
  );
  const removed = { ...EMPTIED_FILE, file: 'removed' };
  const { events } = new HistoryBuilder().crash({ lostFiles: [EMPTIED_FILE], destroyedFiles: [removed] });
  const fault = events.find((event) => event.kind === 'fault');
  if (fault === undefined) throw new Error('the builder adds a fault');
  t.equal(
    describeLostBytes({ ...EMPTIED_FILE, cacheBytes: 5, driveBytes: 7 }, fault),
    '5 bytes were only in the page cache: no sync of them had returned, 7 bytes were in the cache of the drive: no flush had covered them',
  );
  t.match(describeLostBytes(removed, fault), /^the target removed or changed it itself/);
});

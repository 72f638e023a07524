import t from 'tap';
import { HistoryBuilder } from '../fixtures/history-builder.js';
import type { LostFile } from '../history/events.js';
import { checkIoErrors } from './io-errors.js';

const FILE: LostFile = {
  file: 'spool/1-H',
  sizeBytes: 400,
  sizeAfterBytes: null,
  nameAfter: null,
  cacheBytes: 400,
  driveBytes: 0,
  messages: ['1'],
};
const FAILED = {
  sinceMs: 100,
  calls: [{ service: 'mailer', call: 'fsync', path: 'spool', error: 'EIO', count: 1 }],
};

/** A message that is confirmed 3 s before the first failure, and that is lost at an io-error with these traces. */
function lossAt(traces: { destroyedFiles?: LostFile[]; lostFiles?: LostFile[] }, waitMs = 3100) {
  const history = new HistoryBuilder().start('io-error').submit('1').advance(waitMs);
  history.crash({ fault: 'io-error', failed: FAILED, ...traces });
  return checkIoErrors(history.submitAndConsume('2').drain().events);
}

t.test(
  'the reason names the call, the file, the service and the error, and what was destroyed',
  async (t) => {
    const { verdict, why } = lossAt({ destroyedFiles: [FILE] });
    t.equal(verdict, 'fail');
    t.equal(
      why,
      '1 messages confirmed before or during a disk error were lost: io-error 1 gave EIO from fsync of spool (mailer); destroyed: spool/1-H: gone, was 400 bytes',
    );
  },
);

t.test(
  'the violation of a message that was confirmed long before the failure says how long before it was',
  async (t) => {
    const [violation] = lossAt({ destroyedFiles: [FILE] }).violations;
    t.match(violation?.what, /^confirmed 3.0 s before the first failure of io-error 1, and never delivered/);
    t.match(violation?.what, /the target itself removed it from its files: spool\/1-H: gone, was 400 bytes$/);
  },
);

t.test('the violation says that a message was confirmed while calls failed', async (t) => {
  const [violation] = lossAt({ lostFiles: [{ ...FILE, sizeAfterBytes: 0 }] }, 50).violations;
  t.match(violation?.what, /^confirmed after the first failure of io-error 1/);
  t.match(violation?.what, /it was in spool\/1-H: 0 bytes, was 400$/);
});

t.test(
  'a history of an older kit, without the calls, has a reason that claims no more than it knows',
  async (t) => {
    const history = new HistoryBuilder().start('io-error').submit('1').crash({ fault: 'io-error' });
    const { why, violations } = checkIoErrors(history.drain().events);
    t.equal(why, '1 messages confirmed before or during a disk error were lost');
    t.match(violations, [{ what: 'confirmed before or during io-error 1, and never delivered' }]);
  },
);

import t from 'tap';
import type { FileHabit } from '../../../faults/tracing/file-habits.js';
import type { LossExplanation } from './explain-loss.js';
import { type LostInState, stateCause } from './state-cause.js';

const FLUSHED: LossExplanation = { lines: [], files: ['in-7.tmp'], kind: 'flushed', writes: [4], flushAt: 9 };
const STATE: LostInState = {
  ...{ address: '6+5', prefix: 6, message: '1-0-7', confirmedAt: 6 },
  ...{ explained: FLUSHED, lost: [], renames: [], names: ['in-7.tmp'] },
};
const HABIT: FileHabit = {
  ...{ pattern: '#.msg', writers: ['server'], syncers: ['server'] },
  ...{ renamedFrom: ['in-#.tmp'], renamers: ['server'] },
};

t.test('a rename that the state lacks is the cause, and the directory the missing sync', async (t) => {
  const renames = [{ file: '7.msg', nameAfter: 'in-7.tmp', seenAt: 5, certain: true }];
  const { kind, sentence, fix, file, service } = stateCause({ ...STATE, renames }, [HABIT]);
  t.match({ kind, file, service }, { kind: 'directory-not-synced', file: 'in-7.tmp', service: 'server' });
  t.match(
    sentence,
    /^server renames in-7\.tmp to 7\.msg \(seen when 5 requests were complete\) and does not sync the data directory/,
  );
  t.match(sentence, /message 1-0-7 was confirmed when 6 requests were complete/);
  t.match(fix, /fsync on it, after the rename/);
});

t.test('a traced run shows the rename of a file that no sample shows', async (t) => {
  const { kind, sentence } = stateCause(STATE, [HABIT]);
  t.equal(kind, 'directory-not-synced');
  t.match(sentence, /^the target renames in-7\.tmp to #\.msg|^server renames in-7\.tmp to #\.msg/);
  t.equal(stateCause(STATE, []).kind, 'not-recovered', 'without a trace nothing shows it');
});

t.test('the rename of another file after the cut is not blamed', async (t) => {
  const renames = [{ file: '9.msg', nameAfter: 'in-9.tmp', seenAt: 8, certain: false }];
  t.equal(stateCause({ ...STATE, renames, names: [] }, []).kind, 'not-recovered');
});

t.test('a missing or late sync is named with the file and the request that came too late', async (t) => {
  const explained = { ...FLUSHED, files: ['log'] };
  const cause = (kind: LossExplanation['kind'], flushAt: number | null) =>
    stateCause({ ...STATE, explained: { ...explained, kind, flushAt } }, []);
  t.match(cause('not-synced', null), { kind: 'not-synced', sentence: /writes log and never syncs it/ });
  t.match(cause('synced-late', 9), { kind: 'synced-late', sentence: /syncs log too late.*request 9/ });
  t.match(cause('not-written', null), { kind: 'not-written', sentence: /not sent to the disk/ });
});

t.test(
  'a log that was rotated after the confirmation is not blamed for bytes that were not flushed',
  async (t) => {
    const explained = { ...FLUSHED, kind: 'not-synced' as const, files: ['old-1.log'], flushAt: null };
    const rotated = { file: 'old-1.log', nameAfter: 'active.log' };
    const kindAfter = (seenAt: number, certain: boolean) =>
      stateCause({ ...STATE, prefix: 9, explained, renames: [{ ...rotated, seenAt, certain }] }, []);
    t.match(kindAfter(12, false), { kind: 'not-synced' }, 'renamed after the cut');
    t.match(kindAfter(8, true), { kind: 'not-synced' }, 'renamed after the confirmation');
    t.match(kindAfter(5, true), {
      kind: 'directory-not-synced',
      sentence: /were not flushed by then either/,
      fix: /^call fsync on active\.log before the rename/,
    });
  },
);

t.test('a rename of another file is named as likely only', async (t) => {
  const renames = [{ file: 'index', nameAfter: 'index.tmp', seenAt: 5, certain: true }];
  const { sentence } = stateCause({ ...STATE, renames, names: [] }, []);
  t.match(sentence, /renames index\.tmp to index .*likely, and not proven$/);
});

t.test('a file that the target may have removed itself is no proof of a lost name', async (t) => {
  const lost = [
    {
      lost: {
        ...{ file: '7.msg', sizeBytes: 9, sizeAfterBytes: null, nameAfter: null },
        ...{ cacheBytes: 9, driveBytes: 0, messages: [] },
      },
      ...{ seenAt: 5, certain: false },
    },
  ];
  const cause = (kind: LossExplanation['kind']) =>
    stateCause({ ...STATE, lost, names: [], explained: { ...FLUSHED, kind, files: ['7.msg'] } }, []);
  t.match(cause('synced-late'), { kind: 'synced-late' });
  t.match(cause('flushed'), { kind: 'directory-not-synced', sentence: /unless the target had removed it/ });
});

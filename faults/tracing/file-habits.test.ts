import t from 'tap';
import { describeHabit, fileHabits } from './file-habits.js';

const SERVER = [
  '1 openat(AT_FDCWD</q>, "/q/seg-1.log", O_WRONLY|O_CREAT|O_APPEND) = 3</q/seg-1.log>',
  '1 write(3</q/seg-1.log>, ""..., 5) = 5',
  '1 fdatasync(3</q/seg-1.log>) = 0',
  '1 fsync(4</q>) = 0',
];
const COMPACTOR = [
  '9 openat(AT_FDCWD</q>, "/q/base.tmp", O_WRONLY|O_CREAT|O_TRUNC) = 3</q/base.tmp>',
  '9 write(3</q/base.tmp>, ""..., 5) = 5',
  '9 rename("/q/base.tmp", "/q/base-14.log") = 0',
  '9 openat(AT_FDCWD</elsewhere>, "/elsewhere/x", O_WRONLY|O_CREAT|O_TRUNC) = 3</elsewhere/x>',
  '9 write(3</elsewhere/x>, ""..., 5) = 5',
];
const habits = fileHabits(
  new Map([
    ['server', `${SERVER.join('\n')}\n`],
    ['compactor', `${COMPACTOR.join('\n')}\n`],
  ]),
  '/q',
);

t.test(
  'the writer, the missing sync and the rename of a file are described for each file of its kind',
  async (t) => {
    t.equal(
      describeHabit(habits, 'base-99.log'),
      'seen under strace: written by compactor, never synced, renamed from base.tmp by compactor',
    );
    t.equal(describeHabit(habits, 'seg-7.log'), 'seen under strace: written by server, synced by server');
  },
);

t.test('nothing is described for files that the logs do not show, or that are elsewhere', async (t) => {
  t.equal(describeHabit(habits, 'other.db'), '');
  t.equal(habits.filter(({ pattern }) => pattern.includes('elsewhere')).length, 0);
});

import fc from 'fast-check';
import t from 'tap';
import { countCalls } from '../../faults/tracing/count-calls.js';
import { coarseToFine, injectionOf, planPoints, planRows } from './plan.js';

t.test('every call occurs once, and every prefix of the order is spread over all calls', async (t) => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 400 }), (count) => {
      const order = coarseToFine(count);
      const all = [...order].sort((one, other) => one - other);
      return all.length === count && all.every((nth, index) => nth === index + 1);
    }),
  );
  t.same(coarseToFine(9), [1, 9, 5, 3, 7, 2, 4, 6, 8]);
});

t.test('the calls of the busiest thread are counted, and only writes to data files can fail', async (t) => {
  const log = [
    '7 openat(AT_FDCWD</>, "log", O_RDWR) = 3</data/log>',
    '7 write(3</data/log>, ""..., 5) = 5',
    '8 write(1<pipe:[1]>, ""..., 5) = 5',
    '8 write(1<pipe:[1]>, ""..., 5) = 5',
    '8 fdatasync(3</data/log> <unfinished ...>',
    '7 fdatasync(3</data/log>) = 0',
    '8 <... fdatasync resumed>) = 0',
    '8 +++ killed by SIGKILL +++',
  ].join('\n');
  const counts = countCalls(log, new Set(['/data/log']));
  t.same(counts, [
    { kind: 'sync', what: 'kill', count: 1 },
    { kind: 'write', what: 'kill', count: 2 },
    { kind: 'send', what: 'kill', count: 2 },
    { kind: 'open', what: 'kill', count: 1 },
    { kind: 'sync', what: 'fail', count: 1 },
    { kind: 'write', what: 'fail', count: 1 },
  ]);
});

t.test(
  'a call that can fail has a point for each error, and the points alternate between the rows',
  async (t) => {
    const rows = planRows([
      { service: 'a', kind: 'sync', what: 'kill', count: 2 },
      { service: 'a', kind: 'sync', what: 'fail', count: 1 },
    ]);
    t.same(
      rows.map(({ what, calls }) => [what, calls]),
      [
        ['EIO', 1],
        ['ENOSPC', 1],
        ['kill', 2],
      ],
    );
    const points = planPoints(rows);
    t.same(
      points.map(({ what, nth }) => `${what} ${nth}`),
      ['EIO 1', 'ENOSPC 1', 'kill 1', 'kill 2'],
    );
    t.same(
      points.map((point) => injectionOf(point).fault),
      ['io-error', 'io-error', 'kill-syscall', 'kill-syscall'],
    );
  },
);

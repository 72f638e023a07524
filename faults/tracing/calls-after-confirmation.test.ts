import t from 'tap';
import { SYNC_CALLS, WRITE_CALLS } from './call-kinds.js';
import { narrowPositions, positionsOf } from './calls-after-confirmation.js';

/** Makes a log of calls, each with its thread, and the length of the log after the call with index `confirmedAfter`. */
function log(calls: readonly [thread: number, call: string, path?: string][], confirmedAfter: number) {
  const lines = calls.map(([thread, call, path = '/d/log']) => `${thread} ${call}(3<${path}>) = 0\n`);
  return { text: lines.join(''), confirmedOffset: lines.slice(0, confirmedAfter).join('').length };
}

t.test('positions begin after the calls that a thread made before the first confirmation', async (t) => {
  const one = log([...Array(30).fill([7, 'fsync']), [7, 'write'], [7, 'fsync'], [7, 'fsync']], 30);
  t.same(positionsOf([one], ['fsync', 'fdatasync']), { from: 31, to: 32 });
  t.same(positionsOf([one], ['write']), { from: 1, to: 1 });
  t.equal(positionsOf([one], ['pwrite64']), undefined);
});

t.test(
  'no other thread fails before the first confirmation, if the busiest thread gets that far',
  async (t) => {
    const start = Array(4).fill([1, 'fsync']) as [number, string][];
    const far = log([...start, ...(Array(9).fill([2, 'fsync']) as [number, string][])], 4);
    t.same(positionsOf([far], ['fsync']), { from: 5, to: 9 });
    const near = log([...start, [2, 'fsync'], [2, 'fsync']], 4);
    t.same(positionsOf([near], ['fsync']), { from: 1, to: 2 });
  },
);

t.test('threads of different services are different, and only the given files count', async (t) => {
  const [one, other] = [log([[5, 'write', '/d/a']], 0), log([[5, 'write', '/tmp/x']], 0)];
  t.same(positionsOf([one, other], ['write']), { from: 1, to: 1 });
  t.same(positionsOf([other], ['write'], new Set(['/d/a'])), undefined);
});

t.test('a try that failed too early or was not reached narrows the positions of the next ones', async (t) => {
  const after = (known: { from: number; to: number }, shown: { from?: number; to?: number }) => {
    const positions = new Map<readonly string[], { from: number; to: number }>([[SYNC_CALLS, known]]);
    narrowPositions(positions, SYNC_CALLS, shown);
    narrowPositions(positions, WRITE_CALLS, shown);
    // The try has shown only one thing about the other calls: their earlier positions belong to the start.
    const { from } = shown;
    t.same(positions.get(WRITE_CALLS), from === undefined ? undefined : { from, to: 2 * from });
    return positions.get(SYNC_CALLS);
  };
  t.same(after({ from: 4, to: 12 }, { from: 7 }), { from: 7, to: 12 });
  t.same(
    after({ from: 4, to: 12 }, { from: 20 }),
    { from: 20, to: 40 },
    'threads share the calls differently',
  );
  t.same(after({ from: 4, to: 12 }, { from: 2 }), { from: 4, to: 12 });
  t.same(after({ from: 4, to: 12 }, { to: 9 }), { from: 4, to: 9 });
  t.same(after({ from: 4, to: 12 }, { to: 2 }), { from: 2, to: 2 });
  t.same(after({ from: 1, to: 1 }, { to: 0 }), { from: 1, to: 1 });
});

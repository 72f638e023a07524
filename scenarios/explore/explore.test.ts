import t from 'tap';
import { parseState } from '../../faults/write-log/state.js';
import { filesOf, warningsOf } from './explore.js';

t.test('a disk that cannot be made for the story has no sizes, and the verdict stands', async (t) => {
  let calls = 0;
  const makeSlot = () => {
    calls++;
    throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' });
  };
  const exploration = { run: {}, workspace: { makeSlot } } as unknown as Parameters<typeof filesOf>[0];
  t.equal(filesOf(exploration, parseState('5')), undefined);
  t.equal(calls, 1);
});

t.test('files that the target writes outside the recorded disk are a warning', async (t) => {
  t.same(warningsOf({ name: 'small' }, {}), []);
  t.same(warningsOf({ name: 'small' }, { writtenOutside: ['/a', '/b', '/c', '/d'] }), [
    'small writes /a, /b, /c and 1 more outside {data}: no crash state shows what is stored there',
  ]);
});

import t from 'tap';
import { backoffMs, isDue } from './destination.js';

const backoff = { initialMs: 100, maxMs: 1000 };

t.test('the pause doubles with each failed attempt up to the maximum', async (t) => {
  t.strictSame(
    [0, 1, 2, 3, 4, 5, 1000].map((tries) => backoffMs(backoff, tries)),
    [0, 100, 200, 400, 800, 1000, 1000],
  );
});

t.test('a message is due when its pause is over', async (t) => {
  t.ok(isDue(backoff, 0, 0, 5000));
  t.notOk(isDue(backoff, 2, 5000, 5199));
  t.ok(isDue(backoff, 2, 5000, 5200));
});

t.test('a clock that was set back does not delay a message', async (t) => {
  t.ok(isDue(backoff, 2, 5000, 1000));
});

import t from 'tap';
import { attemptsWithin, backoffMs, isDue } from './destination.js';

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

t.test('the attempts within a time are the first one and one after each pause', async (t) => {
  t.strictSame(
    [0, 99, 100, 300, 700, 1500, 2500, 3500].map((timeMs) => attemptsWithin(backoff, timeMs)),
    [1, 1, 2, 3, 4, 5, 6, 7],
  );
  t.equal(attemptsWithin({ initialMs: 1000, maxMs: 10 }, 100), 11);
});

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import t from 'tap';
import { sleepSync, until } from './waiting.js';

t.test('what happened while this process was blocked is seen, although the time is over', async (t) => {
  const child = spawn('sleep', ['60'], { stdio: 'ignore' });
  await once(child, 'spawn');
  let looks = 0;
  const isGone = () => {
    looks += 1;
    if (looks === 1) {
      child.kill('SIGKILL');
      sleepSync(300);
    }
    return child.signalCode !== null;
  };
  t.equal(await until(isGone, 100), true);
  t.equal(looks, 2);
});

t.test(
  'waits at the same time whose conditions take long do not keep the event from being read',
  async (t) => {
    const child = spawn('sleep', ['60'], { stdio: 'ignore' });
    await once(child, 'spawn');
    let looks = 0;
    const isGone = () => {
      looks += 1;
      // By now both go on from timer to timer.
      if (looks === 12) child.kill('SIGKILL');
      sleepSync(6);
      return child.signalCode !== null;
    };
    const startMs = performance.now();
    t.same(await Promise.all([until(isGone, 2000), until(isGone, 2000)]), [true, true]);
    t.ok(performance.now() - startMs < 1000, 'long before the time is over');
  },
);

t.test('what does not happen is given up when the time is over', async (t) => {
  t.equal(await until(() => false, 20), false);
  t.equal(await until(() => false, 60_000, AbortSignal.abort()), false);
});

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import t from 'tap';
import { sleepSync, until } from './waiting.js';

t.test('an event that came while this process was blocked counts, even after the time limit', async (t) => {
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
  'two concurrent waits with slow conditions do not keep the awaited event from being read',
  async (t) => {
    const child = spawn('sleep', ['60'], { stdio: 'ignore' });
    await once(child, 'spawn');
    let looks = 0;
    const isGone = () => {
      looks += 1;
      // By now a timer of one of the two waits is always due.
      if (looks === 12) child.kill('SIGKILL');
      sleepSync(6);
      return child.signalCode !== null;
    };
    const startMs = performance.now();
    t.same(await Promise.all([until(isGone, 2000), until(isGone, 2000)]), [true, true]);
    t.ok(performance.now() - startMs < 1000, 'the waits end long before the time limit');
  },
);

t.test('a wait ends with false at the time limit or when it is aborted', async (t) => {
  t.equal(await until(() => false, 20), false);
  t.equal(await until(() => false, 60_000, AbortSignal.abort()), false);
});

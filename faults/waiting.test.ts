import { spawn } from 'node:child_process';
import { once } from 'node:events';
import t from 'tap';
import { until } from './waiting.js';

t.test('what happened while this process was blocked is seen, although the time is over', async (t) => {
  const child = spawn('sleep', ['60'], { stdio: 'ignore' });
  await once(child, 'spawn');
  const block = () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 300);
  let looks = 0;
  const isGone = () => {
    looks += 1;
    if (looks === 1) {
      child.kill('SIGKILL');
      block();
    }
    return child.signalCode !== null;
  };
  t.equal(await until(isGone, 100), true);
  t.equal(looks, 2);
});

t.test('what does not happen is given up when the time is over', async (t) => {
  t.equal(await until(() => false, 20), false);
  t.equal(await until(() => false, 60_000, AbortSignal.abort()), false);
});

import t from 'tap';
import { Conversions } from './conversions.js';

t.test('messages get memory in their order, up to the limit', async (t) => {
  const conversions = new Conversions(100);
  const [a, b, c, d] = [60, 60, 10, 300].map((bytes) => conversions.reserve(bytes));
  const waiting = () => [a, b, c, d].map((one) => one?.isWaiting);
  t.strictSame(waiting(), [false, true, true, true], 'a small message does not overtake');
  a?.release();
  a?.release();
  t.strictSame(waiting(), [false, false, false, true]);
  b?.release();
  t.strictSame(waiting(), [false, false, false, true], 'a message above the limit goes alone');
  c?.release();
  await Promise.all([a, b, c, d].map((one) => one?.ready));
  const [e, f] = [conversions.reserve(1), conversions.reserve(1)];
  t.ok(e.isWaiting && f.isWaiting);
  e.release();
  await e.ready;
  d?.release();
  await f.ready;
  t.notOk(f.isWaiting, 'one that gave up before holds nothing');
});

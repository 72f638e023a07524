import t from 'tap';
import type { HistoryEvent } from '../../conformance/history/events.js';
import { leastPowerRoundMs, MIN_POWER_MS } from './places.js';
import { setUpMsOf, turnsOf } from './rounds.js';

const installed = (round: number, atMs: number): HistoryEvent => ({ kind: 'installed', atMs, round });
const submitted = (id: string, atMs: number): HistoryEvent => ({
  kind: 'submitted',
  atMs,
  id,
  producer: 0,
  sizeBytes: 1,
  digest: '',
  recipients: 1,
  shape: 'tiny',
});

t.test('a set-up lasts from the last installation to the first message after it', async (t) => {
  const first = [installed(1, 100), submitted('1', 700), submitted('2', 800)];
  t.equal(setUpMsOf(first), 600);
  t.equal(setUpMsOf([...first, installed(2, 5000), submitted('3', 15_000)]), 10_000);
});

t.test('a set-up without a message after it has the duration 0', async (t) => {
  t.equal(setUpMsOf([]), 0);
  t.equal(setUpMsOf([installed(1, 100), submitted('1', 700), installed(2, 5000)]), 0);
});

t.test('a gate of power cuts alone has no turns of other faults left', async (t) => {
  t.same([turnsOf(7, 3), turnsOf(6, 3), turnsOf(0, 0), turnsOf(0, 4)], [3, 2, 0, 0]);
});

t.test('the shortest round of power cuts has time for cuts after its set-up', async (t) => {
  t.equal(leastPowerRoundMs({ setUpMs: 20_000 }, 3000) - 3000 - 20_000, MIN_POWER_MS);
});

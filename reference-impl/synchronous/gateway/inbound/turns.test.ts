import t from 'tap';
import { Turns } from './turns.js';

/** Waits until all sessions had their turn. The time-out of the test is the limit. */
async function order(add: (turns: Turns, entry: (name: string) => () => void) => number): Promise<string[]> {
  const turns = new Turns();
  const names: string[] = [];
  const count = add(turns, (name) => () => void names.push(name));
  while (names.length < count) await new Promise((resolve) => setImmediate(resolve));
  return names;
}

t.test('a session that had few turns comes before all that had many', async (t) => {
  const names = await order((turns, entry) => {
    for (let at = 0; at < 1000; at += 1) turns.wait(100, entry('flood'));
    for (let had = 3; had >= 0; had -= 1) turns.wait(had, entry(`good ${had}`));
    return 1004;
  });
  t.strictSame(
    names.filter((name) => name !== 'flood'),
    ['good 0', 'good 1', 'good 3', 'good 2'],
  );
  t.ok(names.lastIndexOf('good 2') < 6, 'it waits for no round of the others');
});

t.test('a session that had many turns continues, however many new ones come', async (t) => {
  const names = await order((turns, entry) => {
    turns.wait(1_000_000, entry('large'));
    for (let at = 0; at < 1000; at += 1) turns.wait(0, entry('new'));
    return 1001;
  });
  t.ok(names.indexOf('large') < 4);
});

t.test('the event loop continues between the turns, also when sessions wait again', async (t) => {
  const turns = new Turns();
  let had = 0;
  const again = () => {
    had += 1;
    if (had < 1000) turns.wait(had, again);
  };
  for (let at = 0; at < 100; at += 1) turns.wait(at, again);
  let most = 0;
  for (let before = 0; had < 1000; before = had) {
    await new Promise((resolve) => setImmediate(resolve));
    most = Math.max(most, had - before);
  }
  t.ok(most <= 8, `${most} sessions in one turn`);
});

t.test('one session that takes long is the only one of its turn of the event loop', async (t) => {
  const turns = new Turns();
  const times: number[] = [];
  let loops = 0;
  for (let at = 0; at < 8; at += 1) {
    turns.wait(0, () => {
      times.push(loops);
      for (const startMs = performance.now(); performance.now() - startMs < 3; );
    });
  }
  while (times.length < 8) {
    await new Promise((resolve) => setImmediate(resolve));
    loops += 1;
  }
  t.equal(new Set(times).size, 8);
});

import t from 'tap';
import { inGroups } from './groups.js';

const firstLetter = (item: string) => item.charAt(0);

/** A promise that is resolved from outside. */
function door() {
  let open = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { open, opened };
}

t.test(
  'groups run at once, the items of a group one after the other, and results keep the order',
  async (t) => {
    const events: string[] = [];
    const second = door();
    const run = async (item: string) => {
      events.push(`begin ${item}`);
      // The first item of group a ends only when group b has begun: with one job, this would wait for ever.
      if (item === 'a1') await second.opened;
      if (item === 'b1') second.open();
      events.push(`end ${item}`);
      return item.toUpperCase();
    };
    const { signal } = new AbortController();
    t.same(await inGroups(['a1', 'b1', 'a2'], firstLetter, 2, signal, run), ['A1', 'B1', 'A2']);
    t.ok(events.indexOf('begin a2') > events.indexOf('end a1'));
    t.ok(events.indexOf('begin b1') < events.indexOf('end a1'));
  },
);

t.test('an error stops the other calls and comes out when they have ended', async (t) => {
  const begun: string[] = [];
  let ended = false;
  const run = async (item: string, signal: AbortSignal) => {
    begun.push(item);
    if (item === 'a1') throw new Error('no');
    await new Promise<void>((resolve) => {
      if (signal.aborted) resolve();
      else signal.addEventListener('abort', () => resolve());
    });
    ended = true;
  };
  const { signal } = new AbortController();
  await t.rejects(inGroups(['a1', 'b1', 'a2'], firstLetter, 2, signal, run), { message: 'no' });
  t.ok(ended, 'the other call has ended');
  t.notOk(begun.includes('a2'));
});

t.test('an abort from outside ends the run', async (t) => {
  const run = async () => 1;
  await t.rejects(inGroups(['a'], firstLetter, 1, AbortSignal.abort(new Error('stop')), run), {
    message: 'stop',
  });
});

import t from 'tap';
import { sleepSync } from '../../faults/waiting.js';
import { stopProcesses } from './stop-processes.js';

/** A parent that is `polls` polls of its state away from the end of its fork() when it is told to stop. */
function forking(polls: number, state: string) {
  const living = [7];
  const stops: number[] = [];
  let left = polls;
  return {
    living,
    stops,
    look: () => [...living],
    stop: (pid: number) => {
      stops.push(pid);
    },
    areIn: (pid: number, states: string) => {
      if (pid !== 7) return true;
      if (left > 0) {
        left -= 1;
        if (left === 0) living.push(8);
        return states.includes(state);
      }
      return true;
    },
  };
}

t.test('a child that is born after its parent was told to stop is stopped too', async (t) => {
  const { look, stop, areIn, stops } = forking(3, 'R');
  t.same([...stopProcesses(look, stop, areIn)], [7, 8]);
  t.same(stops, [7, 8], 'each once');
});

t.test('one that waits for its disk is not waited for longer than a moment', async (t) => {
  const { look, stop, areIn, living } = forking(Number.POSITIVE_INFINITY, 'D');
  t.same([...stopProcesses(look, stop, areIn)], living);
});

t.test('one that never stands does not hold up the kill for ever', async (t) => {
  const { look, stop, areIn } = forking(Number.POSITIVE_INFINITY, 'R');
  t.same([...stopProcesses(look, stop, areIn)], [7]);
});

t.test(
  'the patience is with those who come to a stop, not with a machine on which a look takes long',
  async (t) => {
    const { living, stop, areIn, stops } = forking(1, 'R');
    const look = () => {
      sleepSync(stops.length === 0 ? 2100 : 0);
      return [...living];
    };
    t.same([...stopProcesses(look, stop, areIn)], [7, 8]);
  },
);

t.test('children that come faster than they are stopped are left at some time', async (t) => {
  const { stop, areIn, stops } = forking(0, 'R');
  t.equal(stopProcesses(() => [stops.length], stop, areIn).size, 20);
});

t.test('nobody is stopped where nobody lives', async (t) => {
  const { stop, areIn, stops } = forking(0, 'R');
  t.same([...stopProcesses(() => [], stop, areIn)], []);
  t.same(stops, []);
});

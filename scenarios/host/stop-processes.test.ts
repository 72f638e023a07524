import t from 'tap';
import { sleepSync } from '../../faults/waiting.js';
import { stopProcesses } from './stop-processes.js';

/**
 * Fakes a parent that is sent SIGSTOP in the middle of fork() and needs `polls` polls of its state to
 * complete it.
 */
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

t.test('a child that is born after its parent was sent SIGSTOP is stopped too', async (t) => {
  const { look, stop, areIn, stops } = forking(3, 'R');
  t.same([...stopProcesses(look, stop, areIn)], [7, 8]);
  t.same(stops, [7, 8], 'each process is stopped once');
});

t.test('a process that waits for its disk delays the stop only briefly', async (t) => {
  const { look, stop, areIn, living } = forking(Number.POSITIVE_INFINITY, 'D');
  t.same([...stopProcesses(look, stop, areIn)], living);
});

t.test('a process that never stops does not delay the kill for ever', async (t) => {
  const { look, stop, areIn } = forking(Number.POSITIVE_INFINITY, 'R');
  t.same([...stopProcesses(look, stop, areIn)], [7]);
});

t.test(
  'the stop timeout begins after the process scan, so that a slow scan does not use it up',
  async (t) => {
    const { living, stop, areIn, stops } = forking(1, 'R');
    const look = () => {
      sleepSync(stops.length === 0 ? 2100 : 0);
      return [...living];
    };
    t.same([...stopProcesses(look, stop, areIn)], [7, 8]);
  },
);

t.test('the number of scans is limited when children are born faster than they are stopped', async (t) => {
  const { stop, areIn, stops } = forking(0, 'R');
  t.equal(stopProcesses(() => [stops.length], stop, areIn).size, 20);
});

t.test('no process is stopped when none is alive', async (t) => {
  const { stop, areIn, stops } = forking(0, 'R');
  t.same([...stopProcesses(() => [], stop, areIn)], []);
  t.same(stops, []);
});

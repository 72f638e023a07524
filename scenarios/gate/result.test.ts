import t from 'tap';
import { findFault } from '../../faults/catalogue/catalogue.js';
import type { Fault } from '../../faults/fault.js';
import { inProcessTarget } from '../fixtures/in-process-runtime.js';
import { TestWorkspace } from '../fixtures/kit.js';
import { PhaseClock } from '../host/phase-clock.js';
import { resultOf } from './result.js';

/** Returns the warnings of an empty run with these faults under a runtime. */
function warnings(
  t: { teardown(remove: () => void): void },
  runtime: 'process' | 'docker' | 'vm',
  faults: readonly string[],
  escaped: readonly string[] = [],
) {
  const place = new TestWorkspace();
  t.teardown(() => place.remove());
  const target = inProcessTarget(place);
  return resultOf({
    ...{ target, power: 'flakey', events: [], rounds: 0, seed: 1, runtime, escaped },
    selection: { faults: faults.map((name) => findFault(name) as Fault), unavailable: [] },
    ...{ time: new PhaseClock('workload').report(), replay: '', evidence: null, bundle: null },
  }).warnings;
}

t.test('a run with faults of the disk has a warning where the kit does not see the files', async (t) => {
  t.match(warnings(t, 'vm', ['kill', 'power-cut']), [/^under vm nothing shows that the target stores/]);
  t.same(warnings(t, 'vm', ['kill']), []);
  t.same(warnings(t, 'docker', ['power-cut']), []);
});

t.test('processes that had escaped are named once, with at most three command lines', async (t) => {
  const named =
    /^\S+ left processes that had escaped from its services; they were killed: sleep 1; sleep 2; sleep 3, and 1 more$/;
  t.match(warnings(t, 'process', ['kill'], ['sleep 1', 'sleep 2', 'sleep 3', 'sleep 4']), [named]);
});

import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { Recorder } from '../../conformance/history/recorder.js';
import { TestWorkspace } from '../fixtures/kit.js';
import { drain } from './drain.js';
import { Ledger } from './workload/ledger.js';

t.test('the drain waits longer for a target that has been slow before', async (t) => {
  const place = new TestWorkspace();
  const recorder = new Recorder(join(place.dir, 'history.jsonl'));
  t.teardown(() => {
    recorder.close();
    place.remove();
  });
  const ledger = new Ledger('run', recorder);
  ledger.tally.outstanding = 1;
  // The drain waits 1.5 times as long, which is more than the six seconds for other targets.
  ledger.maxWaitMs = 5500;
  const drained = drain(ledger, recorder, new AbortController().signal);
  await delay(7000);
  t.same(recorder.events, [], 'the drain still waits');
  ledger.tally.outstanding = 0;
  await drained;
  t.match(recorder.events, [{ kind: 'drained', complete: true }]);
});

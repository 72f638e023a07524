import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { Recorder } from '../../conformance/history/recorder.js';
import { TestWorkspace } from '../fixtures/kit.js';
import { drain } from './drain.js';
import { Ledger } from './workload/ledger.js';

t.test('what a slow target still owes is waited for as long as it has taken before', async (t) => {
  const place = new TestWorkspace();
  const recorder = new Recorder(join(place.dir, 'history.jsonl'));
  t.teardown(() => {
    recorder.close();
    place.remove();
  });
  const ledger = new Ledger('run', recorder);
  ledger.tally.outstanding = 1;
  // One and a half times that is more than the six seconds that are enough for others.
  ledger.maxWaitMs = 5500;
  const drained = drain(ledger, recorder, new AbortController().signal);
  await delay(7000);
  t.same(recorder.events, [], 'it still waits');
  ledger.tally.outstanding = 0;
  await drained;
  t.match(recorder.events, [{ kind: 'drained', complete: true }]);
});

import t from 'tap';
import { newRunId } from '../host/registry.js';
import { whyNotOurs } from './ownership.js';

t.test('a network is only removed where the kit makes that of the run', async (t) => {
  const runId = newRunId();
  const run = { runId, stateDir: '/work/state', outDir: undefined, sinceTicks: 0, resources: [] };
  const why = (path: string) => whyNotOurs({ kind: 'network', path }, run);
  t.equal(why(`/dev/shm/plugpull-${runId}-net-0123abcd`), undefined);
  for (const path of [
    `/dev/shm/plugpull-${newRunId()}-net-0123abcd`,
    `/dev/shm/plugpull-${runId}-net-0123abcd/a`,
    `/dev/shm/plugpull-${runId}-net-x/../plugpull-${runId}-net-0123abcd`,
    `/dev/shm/plugpull-${runId}`,
    '/run/netns',
    '/',
  ])
    t.type(why(path), 'string', path);
});

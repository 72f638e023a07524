import { join } from 'node:path';
import t from 'tap';
import { blocklogAvailability } from '../../../faults/power/blocklog-availability.js';
import { TestWorkspace } from '../../fixtures/kit.js';
import { packageRoot } from '../../host/version.js';
import type { ExploreResult } from '../result/result.js';

const availability = blocklogAvailability();
const skip = availability.available ? false : availability.why;
const QUEUE = join(packageRoot(), 'conformance/fixtures/queue.mjs');

t.test(
  'a state whose messages may still come ends with the exploration and is not called broken',
  { skip },
  async (t) => {
    const workspace = new TestWorkspace();
    t.teardown(() => workspace.remove());
    const target = workspace.target(
      ['{node}', QUEUE, '--data', '{data}', '--port', '{port}', '--wrong', 'syncs-late'],
      { guarantee: { faults: ['kill', 'crash-states'], duplicatesPerCrash: 0, redeliverySeconds: 600 } },
    );
    const explored = await workspace.run(['explore', target, '--budget', '15s', '--seed', '1', '--json']);
    t.not(explored.code, 1, explored.stderr);
    const { verdict, broken, timedOut } = JSON.parse(explored.stdout) as ExploreResult;
    t.not(verdict, 'fail');
    t.equal(broken, 0);
    t.ok(timedOut.states > 0, 'messages were missing in at least one state');
  },
);

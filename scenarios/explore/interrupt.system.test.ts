import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { blocklogAvailability } from '../../faults/power/blocklog-availability.js';
import { until } from '../../faults/waiting.js';
import { type KitProcess, TestWorkspace } from '../fixtures/kit.js';
import { packageRoot } from '../host/version.js';

const availability = blocklogAvailability();
const skip = availability.available ? false : availability.why;
const FIXTURES = join(packageRoot(), 'conformance/fixtures');

/** Starts an exploration whose restore program hangs while the disk of a crash state is mounted. */
async function startHangingExploration(workspace: TestWorkspace): Promise<KitProcess> {
  const target = workspace.target(
    ['{node}', join(FIXTURES, 'queue.mjs'), '--data', '{data}', '--port', '{port}'],
    {
      guarantee: { faults: ['kill', 'crash-states'], duplicatesPerCrash: 0, redeliverySeconds: 6 },
      crashStates: { restore: ['{node}', join(FIXTURES, 'restore-log.mjs'), '--wrong', 'hangs'] },
    },
  );
  const kit = workspace.start(['explore', target, '--budget', '12s', '--seed', '3'], { group: true });
  await kit.waitForStderr(/^recorded/m);
  return kit;
}

t.test(
  'a second Ctrl-C ends an exploration whose disks are in use, and `clean` removes what is left',
  { skip },
  async (t) => {
    const workspace = new TestWorkspace();
    t.teardown(() => workspace.remove());
    const kit = await startHangingExploration(workspace);
    const [runId] = workspace.runs();
    const mounted = () => readFileSync('/proc/self/mounts', 'latin1').includes(`${runId}-states/store/slot-`);
    t.ok(await until(mounted, 10_000), 'crash states are mounted');
    // Send the signal to all processes of the group at once, as a terminal does.
    const interrupt = () => process.kill(-(kit.child.pid ?? 0), 'SIGINT');
    interrupt();
    await kit.waitForStderr(/^interrupted/m);
    interrupt();
    const { code, stderr } = await kit.waitForExit();
    t.equal(code, 130, stderr);
    t.notMatch(stderr, /\n\s+at /, 'no stack trace');
    t.equal((await workspace.run(['clean'])).code, 0);
    t.match(await workspace.run(['clean']), { code: 0, stdout: 'nothing was left\n' });
  },
);

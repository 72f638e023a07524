import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { blocklogAvailability } from '../../faults/power/blocklog-availability.js';
import { until } from '../../faults/waiting.js';
import { type KitProcess, TestWorkspace } from '../fixtures/kit.js';
import { packageRoot } from '../host/version.js';

const availability = blocklogAvailability();
const skip = availability.available ? false : availability.why;
const FIXTURES = join(packageRoot(), 'conformance/fixtures');

/** An exploration whose restore program hangs, with a state's disk in its hands. */
async function hanging(place: TestWorkspace): Promise<KitProcess> {
  const target = place.target(
    ['{node}', join(FIXTURES, 'queue.mjs'), '--data', '{data}', '--port', '{port}'],
    {
      guarantee: { faults: ['kill', 'crash-states'], duplicatesPerCrash: 0 },
      crashStates: { restore: ['{node}', join(FIXTURES, 'restore-log.mjs'), '--wrong', 'hangs'] },
    },
  );
  const kit = place.start(['explore', target, '--budget', '12s', '--seed', '3'], { group: true });
  await kit.waitForStderr(/^recorded/m);
  return kit;
}

t.test('the second Ctrl-C ends an exploration whose disks are in use', { skip }, async (t) => {
  const place = new TestWorkspace();
  t.teardown(() => place.remove());
  const kit = await hanging(place);
  const [runId] = readdirSync(join(place.state, 'residue')).map((name) => name.split('.')[0]);
  const mounted = () => readFileSync('/proc/self/mounts', 'latin1').includes(`${runId}-states/store/slot-`);
  t.ok(await until(mounted, 10_000), 'states are mounted');
  // As a terminal does: all processes of the group at once.
  const interrupt = () => process.kill(-(kit.child.pid ?? 0), 'SIGINT');
  interrupt();
  await kit.waitForStderr(/^interrupted/m);
  interrupt();
  const { code, stderr } = await kit.waitForExit();
  t.equal(code, 130, stderr);
  t.notMatch(stderr, /\n\s+at /, 'no stack trace');
  t.equal((await place.run(['clean'])).code, 0);
  t.match(await place.run(['clean']), { code: 0, stdout: 'nothing was left\n' });
});

import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import t from 'tap';
import { blocklogAvailability } from '../../faults/power/blocklog-availability.js';
import { TestWorkspace } from '../fixtures/kit.js';
import { packageRoot } from '../host/version.js';

const EXAMPLES = join(packageRoot(), 'conformance/examples');
/** Command that shows whether the example in each language can run. */
const NEEDS = {
  python: ['python3', '--version'],
  javascript: ['node', '--version'],
  c: ['cc', '--version'],
  rust: ['rustc', '--version'],
  go: ['go', 'version'],
} as const;

/** States of the run, and of each recovery that is cut. PP-13 needs 20; a service starts and drains for each one. */
const STATES = 20;

const availability = blocklogAvailability();
const noPower = availability.available ? false : availability.why;

t.setTimeout(900_000);
// An exploration mostly waits for messages.
t.jobs = 2;

for (const [language, [program, ...args]] of Object.entries(NEEDS)) {
  const skip = noPower || (spawnSync(program, args).status === 0 ? false : `${program} is not installed`);
  t.test(`every crash state of the ${language} example holds what was confirmed`, { skip }, async (t) => {
    const workspace = new TestWorkspace();
    t.teardown(() => workspace.remove());
    const target = join(EXAMPLES, language, 'target.json');
    const limit = ['--states', `${STATES}`, '--budget', '10m'];
    const { code, stdout, stderr } = await workspace.run([
      'explore',
      target,
      '--json',
      '--seed',
      '3',
      ...limit,
    ]);
    t.equal(code, 0, stdout === '' ? stderr : stdout.slice(0, 1000));
    const { requirements } = JSON.parse(stdout) as { requirements: { id: string; verdict: string }[] };
    t.equal(requirements.find(({ id }) => id === 'PP-13')?.verdict, 'pass');
  });
}

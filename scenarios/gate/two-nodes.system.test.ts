import { join } from 'node:path';
import t from 'tap';
import { TestWorkspace } from '../fixtures/kit.js';
import { packageRoot } from '../host/version.js';
import { nodeNetworkAvailability } from '../runtime/nodes/availability.js';
import type { GateResult } from './result.js';

const CONFORMANCE = join(packageRoot(), 'conformance');
const network = nodeNetworkAvailability();
const skip = network.available ? false : network.why;
/** Upper bound of the gates until every fault has hit, or until a bug has shown. */
const MAX_GATES = 6;

async function gate(target: string, faults: readonly string[], seed: number): Promise<GateResult> {
  const workspace = new TestWorkspace();
  const limit = ['--injections', '4', '--budget', '10m'];
  const args = ['gate', target, '--json', '--seed', `${seed}`, '--faults', faults.join(','), ...limit];
  const { stdout, stderr } = await workspace.run(args).finally(() => workspace.remove());
  if (stdout === '') throw new Error(stderr);
  return JSON.parse(stdout) as GateResult;
}

const failedIds = ({ requirements }: GateResult) =>
  requirements.filter(({ verdict }) => verdict === 'fail').map(({ id }) => id);

t.test(
  'cuts of links and losses of disks hit the example of two nodes, and cost nothing',
  { skip },
  async (t) => {
    const target = join(CONFORMANCE, 'examples/python/primary-backup.json');
    let missing: string[] = ['partition', 'stale-link', 'node-loss'];
    for (let seed = 1; seed <= MAX_GATES && missing.length > 0; seed++) {
      const result = await gate(target, missing, seed);
      t.match(result, { lost: 0, duplicates: 0, corrupted: 0 });
      t.same(failedIds(result), [], result.why);
      t.ok(result.confirmed > 10, `${result.confirmed} confirmed`);
      missing = result.faults.filter(({ hit }) => hit === 0).map(({ name }) => name);
    }
    t.same(missing, [], 'each has hit');
  },
);

/** Planted bugs that faults of clusters show, and the requirements of which each violates one, depending on the draw. */
const BUGS = [
  { bug: 'confirms-before-backup', faults: ['partition', 'node-loss'], requirements: ['PP-22', 'PP-23'] },
  { bug: 'older-writes-win', faults: ['partition'], requirements: ['PP-23'] },
];

for (const { bug, faults, requirements } of BUGS)
  t.test(`the example of two nodes with ${bug} fails ${requirements.join(' or ')}`, { skip }, async (t) => {
    const target = join(CONFORMANCE, 'fixtures/primary-backup', `${bug}.json`);
    let failed: string[] = [];
    // Whether a draw takes the primary is chance.
    for (let seed = 1; seed <= MAX_GATES && failed.length === 0; seed++)
      failed = failedIds(await gate(target, faults, seed));
    t.ok(
      requirements.some((id) => failed.includes(id)),
      `failed: ${failed.join(', ')}`,
    );
  });

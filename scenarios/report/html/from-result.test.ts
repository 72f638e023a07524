import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { TestWorkspace } from '../../fixtures/kit.js';
import { buildReport } from './build.js';
import { sourceFromResult } from './from-result.js';

const RESULT = {
  ...{ target: 'mine', verdict: 'fail', why: 'PP-13: one is lost', seed: 1, tookMs: 5, confirmed: 9 },
  requirements: [{ id: 'PP-13', verdict: 'fail', why: 'one is lost' }],
  ...{ replay: 'plugpull explore t.json', evidence: null, bundle: null },
};

t.test('the result of a gate says which crash state broke, and why', async (t) => {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  const file = join(workspace.dir, 'result.json');
  const story = ['the power is cut at 6', 'cause: server never syncs log'];
  writeFileSync(
    file,
    JSON.stringify({ ...RESULT, crashStates: { verdict: 'fail', story, states: 40, atRisk: 20 } }),
  );
  const { summary } = buildReport(sourceFromResult(file));
  t.match(summary.sentence, /^server never syncs log \(violates PP-13\)/);
  t.same(summary.story, story);
  t.match(summary.basis, { confirmed: 9, statesJudged: 40, statesAtRisk: 20 });
  writeFileSync(file, JSON.stringify({ ...RESULT, crashStates: null }));
  t.match(buildReport(sourceFromResult(file)).summary, { sentence: 'PP-13: one is lost', story: [] });
});

t.test(
  'the result of a gate says how many claimed faults hit, also of those that the run left out',
  async (t) => {
    const workspace = new TestWorkspace();
    t.teardown(() => workspace.remove());
    const file = join(workspace.dir, 'result.json');
    const faults = [{ name: 'kill', tried: 1, hit: 1 }];
    writeFileSync(
      file,
      JSON.stringify({ ...RESULT, faults, claimedHits: { claimed: 7, hit: 1 }, lost: 0, notDelivered: 6 }),
    );
    const { basis } = buildReport(sourceFromResult(file)).summary;
    t.match(basis, { faultsClaimed: 7, faultsHit: 1, lost: 0, notDelivered: 6 });
  },
);

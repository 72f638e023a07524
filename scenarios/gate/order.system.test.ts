import { join } from 'node:path';
import t from 'tap';
import { TestWorkspace } from '../fixtures/kit.js';
import { packageRoot } from '../host/version.js';
import type { GateResult } from './result.js';

/** Targets of each way of delivery that keep the order, each with its twin that does not. */
const TARGETS = [
  ['a queue that is asked for messages', 'ordered', 'reorders'],
  ['a relay that sends messages', 'relays-in-order', 'relay-reorders'],
] as const;

async function gate(t: { teardown(end: () => void): void }, target: string) {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  const file = join(packageRoot(), 'conformance/fixtures', `${target}.json`);
  const flags = ['--json', '--seed', '7', '--budget', '10m', '--faults', 'kill-one', '--injections', '8'];
  const ended = await workspace.run(['gate', file, ...flags]);
  const result = JSON.parse(ended.stdout) as GateResult;
  return { ...ended, result, order: result.requirements.find(({ id }) => id === 'PP-20') };
}

for (const [what, correct, twin] of TARGETS) {
  t.test(`${what} and claims an order passes, because messages waited at crashes`, async (t) => {
    const { code, stderr, result, order } = await gate(t, correct);
    t.equal(code, 0, stderr);
    t.equal(result.verdict, 'pass');
    t.match(order, {
      verdict: 'pass',
      why: /^\d+ messages came in the order of their producers; \d+ of them waited/,
    });
  });

  t.test(`${what} and changes the order in a recovery fails PP-20 and nothing else`, async (t) => {
    const { code, stderr, result, order } = await gate(t, twin);
    t.equal(code, 1, stderr);
    t.equal(order?.verdict, 'fail');
    t.same(
      result.requirements.flatMap(({ id, verdict }) => (verdict === 'fail' ? [id] : [])),
      ['PP-20'],
    );
    t.match(result.causes[0], /^after kill-one \d+ message 1-\d+-\d+ came before message 1-\d+-\d+, /);
    t.match(stderr, /FIX-IT\.md#pp-20/);
    const [violation] = result.violations;
    t.match(violation?.what, /kill-one \d+ came (before both|between the two) deliveries$/);
    t.match(stderr, `The story of message ${violation?.id}`);
  });
}

t.test('the order of a target that does not claim one is not checked', async (t) => {
  const { code, stderr, result, order } = await gate(t, 'correct');
  t.equal(code, 0, stderr);
  t.equal(order, undefined);
  t.ok(result.unclaimed.includes('PP-20'));
  t.notMatch(stderr, /PP-20/);
});

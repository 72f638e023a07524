import t from 'tap';
import type { Needs } from '../../faults/fault.js';
import { FakeCluster } from '../../faults/fixtures/fake-cluster.js';
import { hit } from '../../faults/injection.js';
import { seeded } from '../host/random.js';
import { chooseScope, runWithout, withNodes } from './scope.js';

const THREE = { names: ['a', 'b', 'c'], tolerates: 1 };
const needing = (nodes?: NonNullable<Needs['nodes']>) => ({
  needs: { target: 'up', disk: 'any', ...(nodes === undefined ? {} : { nodes }) } as const,
});

/** Draws a scope with each of many seeds. @returns the drawn numbers of nodes and the names that occurred. */
function scopesOf(
  fault: ReturnType<typeof needing>,
  planned: { beforeStart?: true; inRecovery?: number } = {},
) {
  const cluster = new FakeCluster(THREE);
  const counts = new Set<number>();
  const names = new Set<string>();
  for (let seed = 0; seed < 200; seed++) {
    const nodes = chooseScope(fault, planned, cluster, seeded(seed));
    t.equal(new Set(nodes).size, nodes.length, 'no node occurs twice');
    counts.add(nodes.length);
    for (const { name } of nodes) names.add(name);
  }
  return { counts: [...counts].sort(), names: [...names].sort() };
}

t.test('a fault of one node hits each node in some draw, and never two', async (t) => {
  t.strictSame(scopesOf(needing()), { counts: [1], names: ['a', 'b', 'c'] });
});

t.test('a fault with a scope hits one node, a majority, or all', async (t) => {
  t.strictSame(scopesOf(needing('scope')), { counts: [1, 2, 3], names: ['a', 'b', 'c'] });
});

t.test('the first injection of a fault acts on one node, and a replay on those of the run', async (t) => {
  const cluster = new FakeCluster(THREE);
  for (let seed = 0; seed < 50; seed++) {
    t.equal(chooseScope(needing('scope'), {}, cluster, seeded(seed), true).length, 1);
    const repeated = chooseScope(needing('scope'), { nodes: ['c', 'a'] }, cluster, seeded(seed), true);
    t.strictSame(
      repeated.map(({ name }) => name),
      ['a', 'c'],
    );
  }
});

t.test('a fault of the cluster gets every node, and a cut right after the install as well', async (t) => {
  const all = { counts: [3], names: ['a', 'b', 'c'] };
  t.strictSame(scopesOf(needing('cluster')), all);
  t.strictSame(scopesOf(needing('scope'), { beforeStart: true }), all);
  t.strictSame(scopesOf(needing('scope'), { inRecovery: 0.5 }), all);
});

t.test('an injection names its nodes, and all processes of some nodes are not all processes', async (t) => {
  const cluster = new FakeCluster(THREE);
  const killed = hit('SIGKILL', 'all-processes', ['server@b']);
  t.match(withNodes(killed, cluster.nodes.slice(1, 2), cluster), { nodes: ['b'], scope: 'some-processes' });
  t.match(withNodes(killed, cluster.nodes, cluster), { nodes: ['a', 'b', 'c'], scope: 'all-processes' });
  t.match(withNodes({ ...killed, nodes: ['a'] }, cluster.nodes, cluster), { nodes: ['a'] });
  t.equal(withNodes(killed, cluster.nodes, undefined), killed, 'a target without nodes has none');
});

t.test(
  'the nodes that are left work for a while without those that are down, in half of the draws',
  async (t) => {
    let waited = 0;
    for (let seed = 0; seed < 40; seed++) {
      const cluster = new FakeCluster(THREE);
      const [first] = cluster.nodes;
      if (first === undefined) throw new Error('expected a node');
      for (const service of first.services) await service.signal('SIGKILL');
      await runWithout({ ...hit('', 'some-processes', []), nodes: ['a'] }, cluster, seeded(seed));
      if (cluster.states.length > 0) {
        t.strictSame(cluster.states, [{ down: ['a'], cut: [] }]);
        waited += 1;
      }
    }
    t.ok(waited > 5 && waited < 35, `${waited} of 40`);
  },
);

t.test('nothing is waited for when more nodes are down than the cluster tolerates, or none', async (t) => {
  for (let seed = 0; seed < 20; seed++) {
    const cluster = new FakeCluster(THREE);
    await runWithout({ ...hit('', 'none', []), nodes: ['a'] }, cluster, seeded(seed));
    await runWithout({ ...hit('', 'some-processes', []), nodes: ['a'] }, cluster, seeded(seed));
    for (const node of cluster.nodes) for (const service of node.services) await service.signal('SIGKILL');
    await runWithout({ ...hit('', 'machine', []), nodes: ['a', 'b'] }, cluster, seeded(seed));
    t.strictSame(cluster.states, []);
  }
});

t.test('the node that is left of a pair is not waited for as long as for an election', async (t) => {
  const waits: number[] = [];
  const run = async (names: readonly string[]) => {
    const cluster = new FakeCluster({ names, tolerates: 1 });
    for (const service of cluster.nodes[0]?.services ?? []) await service.signal('SIGKILL');
    const waiting = Object.assign(cluster, {
      electionMs: 60_000,
      waitForConfirmsBy: async (_nodes: readonly string[], _count: number, timeoutMs: number) => {
        waits.push(timeoutMs);
        return 0;
      },
    });
    for (let seed = 0; seed < 10; seed++)
      await runWithout({ ...hit('', 'some-processes', []), nodes: ['a'] }, waiting, seeded(seed));
    return waits.splice(0);
  };
  const pair = await run(['a', 'b']);
  t.ok(pair.length > 0 && pair.every((ms) => ms <= 5000), `it waited ${pair}`);
  const three = await run(['a', 'b', 'c']);
  t.ok(three.length > 0 && three.every((ms) => ms === 60_000), `it waited ${three}`);
});

import t from 'tap';
import type { Fault } from '../fault.js';
import { FakeCluster, NO_DIRECTORIES } from '../fixtures/fake-cluster.js';
import { kill } from './kill.js';
import { pause } from './pause.js';

const THREE = { names: ['a', 'b', 'c'], tolerates: 1 };

/** Injects a fault into the first nodes of a cluster, with each seed. */
async function onNodes(fault: Fault, count: number, seeds: number) {
  const results = [];
  for (let seed = 1; seed <= seeds; seed++) {
    const cluster = new FakeCluster(THREE);
    const context = cluster.context(seed, { ...NO_DIRECTORIES, nodes: cluster.nodes.slice(0, count) });
    const injection = await fault.inject(context);
    const { down } = cluster;
    await fault.heal(context);
    results.push({ injection, down, cluster });
  }
  return results;
}

t.test('kill takes the nodes of its scope down and no other, and records them', async (t) => {
  for (const { injection, down, cluster } of await onNodes(kill, 1, 10)) {
    t.match(injection, { hit: true, scope: 'some-processes', services: ['server@a'], nodes: ['a'] });
    t.same(down, ['a']);
    t.same(
      cluster.states.map((state) => state.down),
      [['a']],
    );
  }
  const scopes = (await onNodes(kill, 3, 20)).map(({ injection }) => injection.scope);
  t.ok(scopes.includes('all-processes'), 'all processes of the cluster were killed');
});

t.test('pause stops all nodes of its scope and lets them continue', async (t) => {
  for (const { injection, down, cluster } of await onNodes(pause, 2, 3)) {
    t.match(injection, { hit: true, scope: 'none', nodes: ['a', 'b'] }, injection.detail);
    t.same(down, []);
    const signals = cluster.log.filter((line) => line.startsWith('SIG'));
    t.same(signals, ['SIGSTOP a', 'SIGSTOP b', 'SIGCONT a', 'SIGCONT b']);
    t.same(
      cluster.states.map((state) => state.down),
      [['a', 'b'], ['a', 'b'], []],
      'before they stop, when they have stopped, and when they go on',
    );
  }
});

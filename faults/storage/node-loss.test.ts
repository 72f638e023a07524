import t from 'tap';
import { FakeCluster, NO_DIRECTORIES } from '../fixtures/fake-cluster.js';
import { testFaultContext } from '../fixtures/fault-context.js';
import { nodeLoss } from './node-loss.js';

const SEEDS = Array.from({ length: 30 }, (_, index) => index + 1);
const THREE = { names: ['a', 'b', 'c'], tolerates: 1 };
const PAIR = { names: ['a', 'b'], tolerates: 1, primary: 'a' };

t.test('node-loss kills one node, lets the others confirm, and starts it with an empty disk', async (t) => {
  for (const seed of SEEDS) {
    const cluster = new FakeCluster({ ...THREE, syncs: false });
    const context = cluster.context(seed, NO_DIRECTORIES);
    const injection = await nodeLoss.inject(context);
    t.match(injection, { hit: true, scope: 'machine' }, injection.detail);
    const [node] = injection.nodes ?? [];
    t.same(cluster.log, [
      `note down ${node}`,
      `SIGKILL ${node}`,
      `replace disk ${node} and install`,
      `start ${node}`,
      'note down ',
    ]);
    await nodeLoss.heal(context);
    t.equal(cluster.lost, 0);
  }
});

t.test('node-loss promotes another node when the lost one was the primary', async (t) => {
  const lost = { a: 0, b: 0 };
  for (const seed of SEEDS) {
    const cluster = new FakeCluster(PAIR);
    const injection = await nodeLoss.inject(cluster.context(seed, NO_DIRECTORIES));
    t.match(injection, { hit: true }, injection.detail);
    const [node = ''] = injection.nodes ?? [];
    lost[node === 'a' ? 'a' : 'b'] += 1;
    t.equal(cluster.log.includes('promote b'), node === 'a');
    t.equal(cluster.lost, 0);
  }
  t.ok(lost.b > 0 && lost.a > lost.b, `the primary is lost in most draws: ${lost.a} and ${lost.b}`);
});

t.test('node-loss leaves a cluster alone whose primary is not known', async (t) => {
  const cluster = new FakeCluster({ ...PAIR, confirmsAtMost: 0 });
  t.match(await nodeLoss.inject(cluster.context(1, NO_DIRECTORIES)), { hit: false, scope: 'none' });
  t.same(cluster.log, []);
});

t.test('node-loss is a miss on a target without nodes', async (t) => {
  t.match(await nodeLoss.inject(testFaultContext(NO_DIRECTORIES)), { hit: false, scope: 'none' });
  await nodeLoss.heal(testFaultContext(NO_DIRECTORIES));
});

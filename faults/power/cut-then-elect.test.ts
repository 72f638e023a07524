import t from 'tap';
import { FakeCluster, NO_DIRECTORIES } from '../fixtures/fake-cluster.js';
import { testFaultContext } from '../fixtures/fault-context.js';
import { cutThenElect } from './cut-then-elect.js';

const SEEDS = Array.from({ length: 30 }, (_, index) => index + 1);
const THREE = { names: ['a', 'b', 'c'], tolerates: 1 };
const FIVE = { names: ['a', 'b', 'c', 'd', 'e'], tolerates: 2 };
const PAIR = { names: ['a', 'b'], tolerates: 1, primary: 'a' };

t.test('cut-then-elect loses what a node confirmed without a sync, and nothing else', async (t) => {
  for (const options of [THREE, FIVE]) {
    let lost = 0;
    for (const seed of SEEDS) {
      for (const syncs of [true, false]) {
        const cluster = new FakeCluster({ ...options, syncs });
        const context = cluster.context(seed, NO_DIRECTORIES);
        const injection = await cutThenElect.inject(context);
        t.match(injection, { hit: true, scope: 'machine' }, injection.detail);
        t.equal(injection.nodes?.length, 2);
        t.ok(injection.failingMs >= 0);
        await cutThenElect.heal(context);
        t.same(cluster.down, []);
        t.same(cluster.states.at(-1), { down: [], cut: [] });
        if (syncs) t.equal(cluster.lost, 0, injection.detail);
        else lost += cluster.lost;
      }
    }
    // Of five nodes, the next majority has a third one, which holds everything: only of three nodes must it be lost.
    if (options === THREE) t.ok(lost >= 10 * SEEDS.length, `${lost} messages lost`);
  }
});

t.test('cut-then-elect keeps the first node isolated until the power of the other is cut', async (t) => {
  const cluster = new FakeCluster(THREE);
  const { nodes = [] } = await cutThenElect.inject(cluster.context(3, NO_DIRECTORIES));
  const [isolated, cutNode] = nodes;
  const steps = cluster.log.filter((line) => line.endsWith(` ${cutNode}`) && !line.startsWith('note'));
  t.same(steps, [
    `stop disk ${cutNode}`,
    `SIGKILL ${cutNode}`,
    `resume disk ${cutNode}`,
    `cut power ${cutNode}`,
    `start ${cutNode}`,
  ]);
  const states = cluster.states.map(({ cut, down }) => ({
    down,
    links: new Set(cut.map((link) => [...link].sort().join(''))).size,
    isolatedIsCut: cut.some(([from, to]) => from === isolated && to === cutNode),
  }));
  t.same(states, [
    { down: [], links: 2, isolatedIsCut: true },
    { down: [cutNode], links: 3, isolatedIsCut: true },
    { down: [cutNode], links: 2, isolatedIsCut: false },
    { down: [], links: 2, isolatedIsCut: false },
  ]);
});

t.test('cut-then-elect is a miss when nothing was confirmed before, and cuts no power then', async (t) => {
  const idle = new FakeCluster({ ...THREE, confirmsAtMost: 0 });
  t.match(await cutThenElect.inject(idle.context(1, NO_DIRECTORIES)), {
    hit: false,
    scope: 'none',
    detail: /nothing that the power cut could lose/,
  });
  t.notOk(idle.log.some((line) => line.startsWith('stop disk')));
});

t.test('cut-then-elect is a miss on fewer than three nodes', async (t) => {
  t.match(await cutThenElect.inject(new FakeCluster(PAIR).context(1, NO_DIRECTORIES)), {
    hit: false,
    detail: /expected at least three/,
  });
  t.match(await cutThenElect.inject(testFaultContext(NO_DIRECTORIES)), { hit: false, scope: 'none' });
  await cutThenElect.heal(testFaultContext(NO_DIRECTORIES));
});

t.test('cut-then-elect is a miss when the next majority confirms nothing', async (t) => {
  const cluster = new FakeCluster(THREE);
  cluster.start = async () => {};
  const injection = await cutThenElect.inject(cluster.context(1, NO_DIRECTORIES));
  t.match(injection, { hit: false, scope: 'machine', detail: /they formed no majority/ });
});

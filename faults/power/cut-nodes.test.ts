import t from 'tap';
import { FakeCluster, NO_DIRECTORIES } from '../fixtures/fake-cluster.js';
import { testRandom } from '../fixtures/fault-context.js';
import { cutNodes, cuttable } from './cut-nodes.js';
import { powerCut } from './power-cut.js';

const THREE = { names: ['a', 'b', 'c'], tolerates: 1 };
/** Steps of a cut of all nodes at the same instant: every disk stops before anything else is done. */
const AT_ONCE = ['stop disk', 'SIGKILL', 'resume disk', 'cut power'].flatMap((step) =>
  THREE.names.map((name) => `${step} ${name}`),
);

const stepsOf = (cluster: FakeCluster) => cluster.log.filter((line) => !line.startsWith('note'));

t.test('the power of all nodes is cut at the same instant, or of one after the other', async (t) => {
  const orders = { together: 0, apart: 0 };
  for (let seed = 1; seed <= 20; seed++) {
    const cluster = new FakeCluster(THREE);
    const context = cluster.context(seed, NO_DIRECTORIES);
    const injection = await powerCut.inject(context);
    await powerCut.heal(context);
    t.match(injection, { hit: true, scope: 'machine', nodes: ['a', 'b', 'c'] });
    t.same(injection.services, ['server@a', 'server@b', 'server@c']);
    t.match(injection.detail, /a: power cut/);
    const steps = stepsOf(cluster);
    t.same([...steps].sort(), [...AT_ONCE].sort(), 'each node had each step once');
    if (injection.detail.includes(', then ')) orders.apart += 1;
    else {
      orders.together += 1;
      t.same(steps, AT_ONCE);
    }
  }
  t.ok(orders.together > 5 && orders.apart > 1, JSON.stringify(orders));
});

t.test('a power cut of one node leaves the others alone', async (t) => {
  const cluster = new FakeCluster(THREE);
  const nodes = cluster.nodes.slice(1, 2);
  const context = cluster.context(1, { ...NO_DIRECTORIES, nodes });
  t.match(await powerCut.inject(context), { hit: true, scope: 'machine', nodes: ['b'] });
  t.same(cluster.down, ['b']);
  t.same(cluster.states[0], { down: ['b'], cut: [] });
});

t.test('every disk goes on when one of them cannot be stopped', async (t) => {
  const cluster = new FakeCluster(THREE);
  const nodes = cuttable(cluster.nodes).map((node) =>
    node.name === 'b'
      ? {
          ...node,
          powerDisk: {
            ...node.powerDisk,
            stop: () => {
              throw new Error('no such disk');
            },
          },
        }
      : node,
  );
  await t.rejects(cutNodes(nodes, testRandom(1)), /no such disk/);
  t.same(stepsOf(cluster), ['stop disk a', 'stop disk c', 'resume disk a', 'resume disk c']);
});

t.test('the files that all nodes have lost are listed', async (t) => {
  const cluster = new FakeCluster(THREE);
  const lost = {
    file: 'log',
    sizeBytes: 9,
    sizeAfterBytes: 4,
    nameAfter: null,
    cacheBytes: 5,
    driveBytes: 0,
  };
  const nodes = cuttable(cluster.nodes).map((node) => ({
    ...node,
    losses: { before: () => {}, after: () => [{ ...lost, file: `${node.name}:log`, messages: [] }] },
  }));
  const { lostFiles } = await cutNodes(nodes, testRandom(1));
  t.same(
    lostFiles?.map(({ file }) => file),
    ['a:log', 'b:log', 'c:log'],
  );
});

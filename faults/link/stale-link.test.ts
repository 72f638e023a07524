import t from 'tap';
import { FakeCluster, NO_DIRECTORIES } from '../fixtures/fake-cluster.js';
import { testFaultContext } from '../fixtures/fault-context.js';
import { linkDelay, linkLoss } from './impair.js';
import { staleLink } from './stale-link.js';

const THREE = { names: ['a', 'b', 'c'], tolerates: 1 };

t.test('stale-link cuts connections and lets them go on, in some draws with a kill meanwhile', async (t) => {
  const kinds = new Set<string>();
  for (let seed = 1; kinds.size < 2 && seed < 40; seed++) {
    const cluster = new FakeCluster(THREE);
    const context = cluster.context(seed, NO_DIRECTORIES);
    const injection = await staleLink.inject(context);
    await staleLink.heal(context);
    t.match(injection, { hit: true, detail: /20 confirmed meanwhile, 7 packets lost/ }, injection.detail);
    kinds.add(injection.scope);
    t.same(cluster.down, []);
    t.ok(
      cluster.states.every(({ cut }) => cut.length === 0),
      'new connections are allowed',
    );
    const [a, b] = injection.nodes ?? [];
    const steps = cluster.log.filter((line) => !line.startsWith('note') && line !== 'cut ');
    const killing = injection.scope === 'none' ? [] : [`SIGKILL ${a}`, `start ${a}`];
    t.same(steps, [`cut connections ${a} ${b}`, ...killing, 'heal connections', 'heal connections']);
  }
  t.same([...kinds].sort(), ['none', 'some-processes']);
});

t.test('stale-link is a miss when no packet was sent, and on a target without nodes', async (t) => {
  const silent = new FakeCluster({ ...THREE, swallows: 0 });
  t.match(await staleLink.inject(silent.context(1, NO_DIRECTORIES)), {
    hit: false,
    detail: /no packet was sent on an old connection/,
  });
  t.match(await staleLink.inject(testFaultContext(NO_DIRECTORIES)), { hit: false, scope: 'none' });
  await staleLink.heal(testFaultContext(NO_DIRECTORIES));
});

t.test('link-delay and link-loss impair one node while messages are confirmed, and heal it', async (t) => {
  for (const fault of [linkDelay, linkLoss]) {
    const impaired = new Map<string, object>();
    const cluster = new FakeCluster(THREE);
    cluster.links.impair = async (node, how) => void impaired.set(node, how);
    const context = cluster.context(1, NO_DIRECTORIES);
    const injection = await fault.inject(context);
    t.match(injection, { hit: true, scope: 'none' }, injection.detail);
    t.same([...impaired.keys()], injection.nodes);
    await fault.heal(context);
    t.same([...impaired.values()], [{}, {}, {}]);
    const idle = new FakeCluster({ ...THREE, confirmsAtMost: 0 });
    idle.links.impair = async () => {};
    t.match(await fault.inject(idle.context(1, NO_DIRECTORIES)), { hit: false, detail: /nothing shows/ });
  }
});

t.test('link-delay and link-loss are misses where the links cannot be impaired', async (t) => {
  for (const fault of [linkDelay, linkLoss]) {
    t.match(await fault.available(), { available: false });
    const context = new FakeCluster(THREE).context(1, NO_DIRECTORIES);
    t.match(await fault.inject(context), { hit: false, detail: /cannot be delayed/ });
    await fault.heal(context);
  }
});

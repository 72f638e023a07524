import t from 'tap';
import { FakeCluster, NO_DIRECTORIES } from '../fixtures/fake-cluster.js';
import { testFaultContext } from '../fixtures/fault-context.js';
import { harmedBy } from './majority.js';
import { partition } from './partition.js';

const SEEDS = Array.from({ length: 30 }, (_, index) => index + 1);
const THREE = { names: ['a', 'b', 'c'], tolerates: 1 };
const FIVE = { names: ['a', 'b', 'c', 'd', 'e'], tolerates: 2 };
const PAIR = { names: ['a', 'b'], tolerates: 1, primary: 'a' };

t.test('partition is a miss on a target without nodes', async (t) => {
  t.match(await partition.inject(testFaultContext(NO_DIRECTORIES)), { hit: false, scope: 'none' });
  await partition.heal(testFaultContext(NO_DIRECTORIES));
});

t.test('partition hits, harms no more nodes than tolerated, and heals every link', async (t) => {
  for (const options of [THREE, FIVE]) {
    const details = new Set<string>();
    for (const seed of SEEDS) {
      const cluster = new FakeCluster(options);
      const context = cluster.context(seed, NO_DIRECTORIES);
      const injection = await partition.inject(context);
      t.match(injection, { hit: true, scope: 'none' }, injection.detail);
      const cut = cluster.states[0]?.cut ?? [];
      t.ok(cut.length > 0 && harmedBy(options.names, cut).length <= options.tolerates, injection.detail);
      t.same(injection.nodes, harmedBy(options.names, cut));
      t.ok(cluster.log.indexOf('note down ') < cluster.log.findIndex((line) => line.startsWith('cut ')));
      await partition.heal(context);
      await partition.heal(context);
      t.same(cluster.states.at(-1), { down: [], cut: [] });
      t.equal(cluster.log.filter((line) => line.startsWith('cut ')).at(-1), 'cut ');
      t.equal(cluster.lost, 0);
      details.add(injection.detail.replace(/ for \d+ ms.*/, ''));
    }
    t.ok(details.size > 6, `${details.size} different partitions`);
  }
});

t.test('a partition is a miss when nothing was sent or nothing was confirmed', async (t) => {
  const silent = new FakeCluster({ ...THREE, swallows: 0 });
  t.match(await partition.inject(silent.context(1, NO_DIRECTORIES)), {
    hit: false,
    detail: /no packet was sent on a cut link/,
  });
  const idle = new FakeCluster({ ...THREE, confirmsAtMost: 0 });
  t.match(await partition.inject(idle.context(1, NO_DIRECTORIES)), {
    hit: false,
    detail: /nothing was confirmed meanwhile, although .* might/,
  });
  const intolerant = new FakeCluster({ names: ['a', 'b'], tolerates: 0 });
  t.match(await partition.inject(intolerant.context(1, NO_DIRECTORIES)), {
    hit: false,
    detail: 'no partition of 2 nodes harms at most 0 of them',
  });
  t.same(intolerant.log, [], 'nothing was cut');
});

t.test('in some draws, the primary of a pair is cut off and the other node promoted', async (t) => {
  let promotions = 0;
  for (const seed of SEEDS.slice(0, 12)) {
    const cluster = new FakeCluster(PAIR);
    const injection = await partition.inject(cluster.context(seed, NO_DIRECTORIES));
    if (!cluster.log.includes('promote b')) continue;
    promotions += 1;
    t.match(injection, { hit: true, nodes: ['a'], detail: /, b promoted, \d+ confirmed/ });
    const cutAt = cluster.log.findIndex((line) => line.startsWith('cut '));
    t.ok(cutAt >= 0 && cutAt < cluster.log.indexOf('promote b'), 'it is promoted after the cut');
  }
  t.ok(promotions > 1 && promotions < 12, `${promotions} promotions`);
});

t.test('a pair may stand still while it is cut, and must confirm again when it is healed', async (t) => {
  for (const [confirmsAgain, hit] of [
    [3, true],
    [0, false],
  ] as const) {
    for (const seed of SEEDS.slice(0, 6)) {
      const cluster = new FakeCluster({ names: ['a', 'b'], tolerates: 1 });
      cluster.waitForConfirmsBy = async () => {
        const isCut = (cluster.states.at(-1)?.cut.length ?? 0) > 0;
        return isCut ? 0 : confirmsAgain;
      };
      const injection = await partition.inject(cluster.context(seed, NO_DIRECTORIES));
      t.match(injection, {
        hit,
        detail: hit
          ? /, 0 confirmed meanwhile, .*; confirmed again after the healing$/
          : /nothing was confirmed in 1 s after the healing/,
      });
      t.same(cluster.states.at(-1), { down: [], cut: [] });
    }
  }
  const silent = new FakeCluster({ names: ['a', 'b'], tolerates: 1, swallows: 0, confirmsAtMost: 0 });
  t.match(await partition.inject(silent.context(1, NO_DIRECTORIES)), {
    hit: false,
    detail: /no packet was sent/,
  });
});

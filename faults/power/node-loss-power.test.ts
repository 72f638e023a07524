import t from 'tap';
import { FakeCluster, NO_DIRECTORIES } from '../fixtures/fake-cluster.js';
import { testFaultContext } from '../fixtures/fault-context.js';
import { nodeLossPower } from './node-loss-power.js';

const SEEDS = Array.from({ length: 30 }, (_, index) => index + 1);
const THREE = { names: ['a', 'b', 'c'], tolerates: 1 };
const PAIR = { names: ['a', 'b'], tolerates: 1, primary: 'a' };

t.test('node-loss-power loses what the others confirmed without a sync, and nothing else', async (t) => {
  for (const options of [THREE, PAIR]) {
    for (const syncs of [true, false]) {
      let lost = 0;
      for (const seed of SEEDS) {
        const cluster = new FakeCluster({ ...options, syncs });
        // Something is confirmed before.
        await cluster.waitForConfirmsBy(options.names, 5);
        const context = cluster.context(seed, NO_DIRECTORIES);
        const injection = await nodeLossPower.inject(context);
        t.match(injection, { hit: true, scope: 'machine', nodes: options.names }, injection.detail);
        t.equal(injection.services.length, options.names.length);
        await nodeLossPower.heal(context);
        t.same(cluster.down, []);
        t.same(cluster.states.at(-1), { down: [], cut: [] });
        if (cluster.lost > 0) lost += 1;
      }
      t.equal(lost, syncs ? 0 : SEEDS.length, `${options.names}, syncs: ${syncs}`);
    }
  }
});

t.test('node-loss-power stops the other disks, kills the lost node, and brings it back last', async (t) => {
  const cluster = new FakeCluster(THREE);
  const injection = await nodeLossPower.inject(cluster.context(2, NO_DIRECTORIES));
  const lost = cluster.log.find((line) => line.startsWith('replace'))?.split(' ')[2] ?? '';
  const others = THREE.names.filter((name) => name !== lost);
  t.same(cluster.log, [
    `note down ${THREE.names.join(' ')}`,
    ...others.map((name) => `stop disk ${name}`),
    ...others.map((name) => `SIGKILL ${name}`),
    `SIGKILL ${lost}`,
    ...others.map((name) => `resume disk ${name}`),
    ...others.map((name) => `cut power ${name}`),
    ...others.map((name) => `start ${name}`),
    `note down ${lost}`,
    `replace disk ${lost} and install`,
    `start ${lost}`,
    'note down ',
  ]);
  t.match(injection.detail, new RegExp(`^${lost} and its disk lost; ${others[0]}: power cut`));
});

t.test(
  'node-loss-power takes the node that confirms in most draws, and promotes the other one',
  async (t) => {
    let primaries = 0;
    for (const seed of SEEDS) {
      const cluster = new FakeCluster(PAIR);
      const { detail } = await nodeLossPower.inject(cluster.context(seed, NO_DIRECTORIES));
      const takesPrimary = detail.startsWith('a and its disk lost');
      t.equal(cluster.log.includes('promote b'), takesPrimary, detail);
      if (takesPrimary) primaries += 1;
    }
    t.ok(primaries > SEEDS.length / 2 && primaries < SEEDS.length, `${primaries} of ${SEEDS.length}`);
  },
);

t.test('node-loss-power leaves alone what it cannot harm, and says why', async (t) => {
  const idle = new FakeCluster({ ...PAIR, confirmsAtMost: 0 });
  t.match(await nodeLossPower.inject(idle.context(1, NO_DIRECTORIES)), {
    hit: false,
    scope: 'none',
    detail: /the primary is not known/,
  });
  t.same(idle.log, []);
  const fragile = new FakeCluster({ ...THREE, tolerates: 0 });
  t.match(await nodeLossPower.inject(fragile.context(1, NO_DIRECTORIES)), { hit: false, scope: 'none' });
  const noPower = new FakeCluster(THREE);
  Object.assign(noPower, { nodes: noPower.nodes.map((node) => ({ ...node, powerDisk: undefined })) });
  t.match(await nodeLossPower.inject(noPower.context(1, NO_DIRECTORIES)), {
    hit: false,
    detail: /whose power cannot be cut/,
  });
  t.match(await nodeLossPower.inject(testFaultContext(NO_DIRECTORIES)), { hit: false, scope: 'none' });
  await nodeLossPower.heal(testFaultContext(NO_DIRECTORIES));
});

t.test('node-loss-power is a miss when nothing is confirmed afterwards', async (t) => {
  const cluster = new FakeCluster(THREE);
  cluster.start = async () => {};
  t.match(await nodeLossPower.inject(cluster.context(1, NO_DIRECTORIES)), {
    hit: false,
    scope: 'machine',
    detail: /nothing was confirmed afterwards/,
  });
});

import t from 'tap';
import { FakeCluster, NO_DIRECTORIES } from '../../faults/fixtures/fake-cluster.js';
import { cutThenElect } from '../../faults/power/cut-then-elect.js';
import { rebootAfterCut, rebootNode, withOldBoot } from './round-cluster.js';

const NAMES = ['a', 'b', 'c'];

/** Makes machines with a boot id each. Of the named ones a process lives. Only what a reboot looks at is there. */
function machinesOf(alive: readonly string[]) {
  const boots = new Map(NAMES.map((name) => [name, 1]));
  const nodes = NAMES.map((name) => ({
    name,
    services: [{ name: `server@${name}`, pids: () => (alive.includes(name) ? [1] : []) }],
    deployment: {
      async reboot() {
        boots.set(name, (boots.get(name) ?? 0) + 1);
        return name === 'c' ? 'c has no other boot id' : undefined;
      },
    },
  }));
  return { launched: { nodes } as unknown as Parameters<typeof rebootNode>[0], boots };
}

t.test('a node without a process boots again, and one with a process keeps its directories', async (t) => {
  const { launched, boots } = machinesOf(['a']);
  for (const name of ['a', 'b']) t.equal(await rebootNode(launched, name), undefined);
  t.strictSame([...boots.values()], [1, 2, 1]);
});

t.test('the reason why a node cannot see another boot is returned, and told', async (t) => {
  const { launched } = machinesOf([]);
  const problem = await rebootNode(launched, 'c');
  t.equal(problem, 'c has no other boot id');
  t.match(withOldBoot('power cut', problem), /^power cut; the target sees the old boot id \(c has no other/);
  t.equal(withOldBoot('power cut', undefined), 'power cut');
});

t.test(
  'a node whose power was cut sees another boot id before it starts again, and no other one does',
  async (t) => {
    for (let seed = 1; seed <= 20; seed++) {
      const { launched, boots } = machinesOf([]);
      const cluster = new FakeCluster({ names: NAMES, tolerates: 1 });
      const nodes = cluster.nodes.map((node) => ({
        ...node,
        powerDisk: node.powerDisk && rebootAfterCut(node.powerDisk, () => rebootNode(launched, node.name)),
      }));
      /** Boot ids when a node is started. */
      const seen: (readonly [string, number | undefined])[] = [];
      const start = cluster.start.bind(cluster);
      cluster.start = async (name) => {
        seen.push([name, boots.get(name)]);
        await start(name);
      };
      Object.assign(cluster, { nodes });
      const injection = await cutThenElect.inject(cluster.context(seed, NO_DIRECTORIES));
      const [isolated = '', cut = ''] = injection.nodes ?? [];
      t.match(injection, { hit: true });
      t.strictSame(seen, [[cut, 2]]);
      for (const name of NAMES)
        t.equal(boots.get(name), name === cut ? 2 : 1, `${name}, isolated: ${isolated}`);
      t.equal(/the old boot id/.test(injection.detail), cut === 'c');
    }
  },
);

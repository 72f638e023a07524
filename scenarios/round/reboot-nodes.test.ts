import t from 'tap';
import { rebootNodes } from './round-cluster.js';

/** Makes nodes of which the named ones have a process. Only what a reboot looks at is there. */
function nodesOf(names: readonly string[], alive: readonly string[]) {
  const rebooted: string[] = [];
  const nodes = names.map((name) => ({
    name,
    services: [{ name: `server@${name}`, pids: () => (alive.includes(name) ? [1] : []) }],
    deployment: {
      async reboot() {
        rebooted.push(name);
        return name === 'c' ? 'c has no other boot id' : undefined;
      },
    },
  }));
  return { launched: { nodes } as unknown as Parameters<typeof rebootNodes>[0], rebooted };
}

t.test('only nodes without a process reboot: a node that was isolated keeps its directories', async (t) => {
  const { launched, rebooted } = nodesOf(['a', 'b', 'c'], ['a']);
  t.equal(await rebootNodes(launched, ['a', 'b']), undefined);
  t.same(rebooted, ['b']);
});

t.test('the reason why a node cannot see another boot is returned', async (t) => {
  const { launched, rebooted } = nodesOf(['a', 'b', 'c'], []);
  t.equal(await rebootNodes(launched, ['b', 'c']), 'c has no other boot id');
  t.same(rebooted, ['b', 'c']);
});

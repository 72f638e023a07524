import fc from 'fast-check';
import t from 'tap';
import {
  connectedGroups,
  cutOffNodes,
  describeHarm,
  type Harm,
  isHealed,
  isLinkFault,
  isSameHarm,
  NO_HARM,
  servingNodes,
} from './cluster-states.js';

const NODES = ['a', 'b', 'c'];
/** Makes a state: `a-b` cuts both directions, `a>b` one. */
const harm = (links: string[], down: string[] = [], promoted?: string[]): Harm => ({
  down,
  cut: links.flatMap(([from = '', how, to = '']): [string, string][] =>
    how === '>'
      ? [[from, to]]
      : [
          [from, to],
          [to, from],
        ],
  ),
  ...(promoted && { promoted }),
});

t.test('nodes that must go on are the only large group whose nodes all reach each other', async (t) => {
  const cases: [string, string[], Harm, number, string][] = [
    ['nothing is harmed', NODES, NO_HARM, 1, 'abc'],
    ['one node is isolated', NODES, harm(['a-b', 'a-c']), 1, 'bc'],
    ['one node cannot send', NODES, harm(['a>b', 'a>c']), 1, 'bc'],
    ['one node is down', NODES, harm([], ['c']), 1, 'ab'],
    ['two of three are down', NODES, harm([], ['b', 'c']), 1, ''],
    ['all are down', NODES, harm([], NODES), 3, ''],
    ['two majorities overlap', NODES, harm(['a-c']), 1, ''],
    ['nothing is tolerated', NODES, harm(['a-b', 'a-c']), 0, ''],
    ['two halves', ['a', 'b', 'c', 'd'], harm(['a-c', 'a-d', 'b-c', 'b-d']), 2, ''],
    ['a pair is cut', ['a', 'b'], harm(['a-b']), 1, ''],
    ['a pair is cut, and one was promoted', ['a', 'b'], harm(['a-b'], [], ['b']), 1, 'b'],
    ['one of a pair is down', ['a', 'b'], harm([], ['a']), 1, ''],
    ['one of a pair is down, and the other was promoted', ['a', 'b'], harm([], ['a'], ['b']), 1, 'b'],
    ['five nodes, two down, one tolerated', ['a', 'b', 'c', 'd', 'e'], harm([], ['a', 'b']), 1, ''],
    ['five nodes, two down, two tolerated', ['a', 'b', 'c', 'd', 'e'], harm([], ['a', 'b']), 2, 'cde'],
  ];
  for (const [name, nodes, state, tolerates, expected] of cases)
    t.equal(servingNodes(nodes, state, tolerates).sort().join(''), expected, name);
});

t.test('a node is cut off when its group is no majority, and was not promoted', async (t) => {
  const cases: [string, string[], Harm, string][] = [
    ['nothing is cut', NODES, harm([], ['a', 'b']), ''],
    ['one node is isolated', NODES, harm(['a-b', 'a-c']), 'a'],
    ['one node cannot hear', NODES, harm(['b>a', 'c>a']), 'a'],
    ['two majorities overlap', NODES, harm(['a-c']), ''],
    ['one is isolated, another is down', NODES, harm(['a-b', 'a-c'], ['c']), 'ab'],
    ['two halves', ['a', 'b', 'c', 'd'], harm(['a-c', 'a-d', 'b-c', 'b-d']), 'abcd'],
    ['a pair is cut, and one was promoted', ['a', 'b'], harm(['a-b'], [], ['b']), 'a'],
  ];
  for (const [name, nodes, state, expected] of cases)
    t.equal([...cutOffNodes(nodes, state)].sort().join(''), expected, name);
});

t.test('a state is described in words', async (t) => {
  t.equal(describeHarm(NO_HARM), '');
  t.equal(describeHarm(harm(['a-b', 'a-c'], ['b'])), 'a is cut off from b and c; b is down');
  t.equal(describeHarm(harm(['a>b'], ['b', 'c'])), 'nothing comes from a to b; b and c are down');
  t.equal(describeHarm(harm([], ['a'], ['b'])), 'a is down; b was promoted');
  t.equal(
    describeHarm(harm(['a-c', 'a-d', 'b-c', 'b-d'])),
    'a is cut off from c and d; b is cut off from c and d',
  );
});

t.test('states are equal in any order of their lists', async (t) => {
  t.ok(isSameHarm(harm(['a-b', 'a-c'], ['b', 'c']), harm(['c-a', 'b-a'], ['c', 'b'])));
  t.notOk(isSameHarm(harm(['a>b']), harm(['b>a'])));
  t.notOk(isSameHarm(harm([], ['a']), harm([], ['a'], ['b'])));
  t.ok(isHealed(harm([], [], ['a'])) && !isHealed(harm(['a>b'])) && !isHealed(harm([], ['a'])));
});

t.test('a fault of links has a name of their families', async (t) => {
  const names = ['partition', 'partition-bridge', 'stale-link', 'link-delay', 'link-loss'];
  t.ok(names.every(isLinkFault));
  t.notOk(['kill', 'node-loss', 'index-loss', 'cut-then-elect'].some(isLinkFault));
});

t.test(
  'in every state, a node that must go on is not cut off, and each live node is in one group',
  async (t) => {
    const all = ['a', 'b', 'c', 'd', 'e'];
    const states = fc.record({
      nodes: fc.integer({ min: 2, max: 5 }).map((count) => all.slice(0, count)),
      down: fc.subarray(all),
      cut: fc.array(fc.tuple(fc.constantFrom(...all), fc.constantFrom(...all)).filter(([a, b]) => a !== b)),
      promoted: fc.subarray(all, { maxLength: 1 }),
      tolerates: fc.nat(4),
    });
    let serving = 0;
    let cutOff = 0;
    fc.assert(
      fc.property(states, ({ nodes, down, cut, promoted, tolerates }) => {
        const state = { down, cut, promoted };
        const mustConfirm = servingNodes(nodes, state, tolerates);
        const mustNot = cutOffNodes(nodes, state);
        serving += mustConfirm.length;
        cutOff += mustNot.size;
        const members = connectedGroups(nodes, state).flat();
        const live = nodes.filter((node) => !down.includes(node));
        const isSplit = members.length === live.length && live.every((node) => members.includes(node));
        const isPromoted = mustConfirm.some((node) => promoted.includes(node));
        return isSplit && (isPromoted || mustConfirm.every((node) => !mustNot.has(node)));
      }),
    );
    t.ok(serving > 0 && cutOff > 0, `${serving} and ${cutOff} nodes`);
  },
);

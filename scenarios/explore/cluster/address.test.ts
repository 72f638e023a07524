import fc from 'fast-check';
import t from 'tap';
import { NOTHING_TORN } from '../../../faults/write-log/state.js';
import { type ClusterState, formatClusterState, type NodeState, parseClusterState } from './address.js';

const NODE_STATE: fc.Arbitrary<NodeState> = fc.oneof(
  fc.constant('live' as const),
  fc.record({
    prefix: fc.nat(900),
    kept: fc
      .uniqueArray(fc.nat(900), { maxLength: 6 })
      .map((numbers) => numbers.sort((one, other) => one - other)),
    torn: fc.constantFrom(NOTHING_TORN, new Map([[7, [0, 1, 3]]])),
  }),
);
const STATE: fc.Arbitrary<ClusterState> = fc
  .record({
    instant: fc.nat(),
    states: fc.array(NODE_STATE, { minLength: 2, maxLength: 5 }),
    away: fc.nat(9),
  })
  .map(({ instant, states, away }) => {
    const names = states.map((_, index) => `n${index}`);
    const nodes = new Map(states.map((state, index) => [names[index] ?? '', state]));
    return { instant, nodes, ...(names[away] === undefined ? {} : { away: names[away] }) };
  });

t.test('the address of a state is enough to get the state back', async () => {
  fc.assert(
    fc.property(STATE, (state) => {
      const again = parseClusterState(formatClusterState(state));
      t.same([...again.nodes], [...state.nodes]);
      return again.instant === state.instant && again.away === state.away;
    }),
    { numRuns: 200 },
  );
});

t.test('an address says which node was only killed, and which machine stays off', async (t) => {
  const text = '17/a:812+800-804~809:0-3|-b:640|c:live';
  const { instant, nodes, away } = parseClusterState(text);
  t.equal(instant, 17);
  t.equal(away, 'b');
  t.equal(nodes.get('c'), 'live');
  t.match(nodes.get('a'), { prefix: 812, kept: [800, 801, 802, 803, 804] });
  t.equal(formatClusterState({ instant, nodes, away }), text);
});

t.test('a text that is no address is refused, with an example', async (t) => {
  for (const text of [
    '',
    '17',
    'a:1|b:2',
    '1/a',
    '1/a:',
    '1/a:x',
    '1/a:1|a:2',
    '1/-a:1|-b:2',
    '1/:3',
    '-1/a:1',
  ])
    t.throws(() => parseClusterState(text), RangeError, `"${text}"`);
  t.throws(() => parseClusterState('17/a'), /such as 17\/a:812/);
});

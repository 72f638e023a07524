import fc from 'fast-check';
import t from 'tap';
import type { LinkCut } from '../fault.js';
import { testRandom } from '../fixtures/fault-context.js';
import { between, componentsOf, harmedBy, majorityOf, mayConfirm, quorumOf } from './majority.js';
import { drawShape } from './shapes.js';

const NAMES = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i'];

const nodesAndCuts = fc.integer({ min: 2, max: NAMES.length }).chain((count) => {
  const nodes = NAMES.slice(0, count);
  const links = nodes.flatMap((from) => nodes.filter((to) => to !== from).map((to): LinkCut => [from, to]));
  return fc.record({ nodes: fc.constant(nodes), cut: fc.subarray(links) });
});

t.test('the groups of nodes are the nodes, each once, the largest group first', async () => {
  fc.assert(
    fc.property(nodesAndCuts, ({ nodes, cut }) => {
      const groups = componentsOf(nodes, cut);
      const sizes = groups.map((group) => group.length);
      return (
        groups.flat().sort().join() === nodes.join() &&
        sizes.every((size, index) => size >= (sizes[index + 1] ?? 0)) &&
        harmedBy(nodes, cut).length === nodes.length - (sizes[0] ?? 0)
      );
    }),
  );
});

t.test('no link with both directions joins two groups', async () => {
  fc.assert(
    fc.property(nodesAndCuts, ({ nodes, cut }) => {
      const groups = componentsOf(nodes, cut);
      const isCut = (a: string, b: string) => cut.some(([from, to]) => from === a && to === b);
      return groups.every((one) =>
        groups.every(
          (other) => one === other || one.every((a) => other.every((b) => isCut(a, b) || isCut(b, a))),
        ),
      );
    }),
  );
});

t.test('a further cut joins no groups, and lets no further node confirm', async () => {
  fc.assert(
    fc.property(nodesAndCuts, fc.nat(), fc.nat(), ({ nodes, cut }, a, b) => {
      const [from, to] = [nodes[a % nodes.length], nodes[b % nodes.length]];
      if (from === undefined || to === undefined || from === to) return true;
      const more: LinkCut[] = [...cut, [from, to]];
      const before = mayConfirm(nodes, cut, majorityOf(nodes.length));
      const after = mayConfirm(nodes, more, majorityOf(nodes.length));
      return (
        componentsOf(nodes, more).length >= componentsOf(nodes, cut).length &&
        after.every((node) => before.includes(node))
      );
    }),
  );
});

t.test('two nodes that may confirm both have a node in common that both reach', async () => {
  fc.assert(
    fc.property(nodesAndCuts, ({ nodes, cut }) => {
      const isLinked = (a: string, b: string) =>
        a === b || !cut.some(([from, to]) => (from === a && to === b) || (from === b && to === a));
      const confirming = mayConfirm(nodes, cut, majorityOf(nodes.length));
      return confirming.every((a) =>
        confirming.every((b) => nodes.some((common) => isLinked(a, common) && isLinked(b, common))),
      );
    }),
  );
});

t.test('a quorum is a majority, or one node of a pair that tolerates the loss of the other', async (t) => {
  t.equal(quorumOf(3, 1), 2);
  t.equal(quorumOf(5, 1), 3, 'a majority is enough, although more are left');
  t.equal(quorumOf(5, 2), 3);
  t.equal(quorumOf(2, 1), 1);
  t.equal(quorumOf(2, 0), 2);
  t.equal(quorumOf(4, 3), 1);
});

t.test('cuts between groups are in both directions, or only from the first', async (t) => {
  t.same(between(['a'], ['b', 'c']), [
    ['a', 'b'],
    ['b', 'a'],
    ['a', 'c'],
    ['c', 'a'],
  ]);
  t.same(between(['a'], ['b'], 'one'), [['a', 'b']]);
});

t.test('a drawn partition stays within the fault budget and cuts something', async (t) => {
  const kinds = new Set<string>();
  fc.assert(
    fc.property(
      fc.integer({ min: 2, max: NAMES.length }),
      fc.nat(8),
      fc.nat(),
      fc.option(fc.nat(), { nil: undefined }),
      (count, wanted, seed, target) => {
        const nodes = NAMES.slice(0, count);
        const tolerates = wanted % count;
        const mustHarm = target === undefined ? undefined : nodes[target % count];
        const shape = drawShape(testRandom(seed), nodes, tolerates, mustHarm);
        if (shape === undefined) return tolerates === 0 && (count === 2 || mustHarm !== undefined);
        const overlaps = shape.detail.includes('sees both');
        kinds.add(
          overlaps ? 'bridge' : shape.detail.startsWith('no packet') ? 'one-way' : `${shape.harmed.length}`,
        );
        const all = mayConfirm(nodes, shape.cut, majorityOf(count));
        return (
          shape.cut.length > 0 &&
          harmedBy(nodes, shape.cut).length <= tolerates &&
          shape.harmed.length <= tolerates &&
          (mustHarm === undefined || shape.harmed.includes(mustHarm)) &&
          (overlaps ? all.length === count : shape.harmed.length > 0)
        );
      },
    ),
    { numRuns: 2000 },
  );
  for (const kind of ['bridge', 'one-way', '1', '2']) t.ok(kinds.has(kind), `${kind} was drawn`);
});

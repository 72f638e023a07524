import fc from 'fast-check';
import t from 'tap';
import { freeSubnets, SUBNET_COUNT, subnetIndexOf, subnetOf } from './subnets.js';

t.test('subnets have the addresses of 198.18.0.0/15, and no two have one in common', async (t) => {
  t.same(
    [subnetOf(0).kit, subnetOf(0).node(0), subnetOf(0).node(8)],
    ['198.18.0.1', '198.18.0.2', '198.18.0.10'],
  );
  t.equal(subnetOf(1).kit, '198.18.0.33');
  t.equal(subnetOf(SUBNET_COUNT - 1).node(28), '198.19.255.254');
});

t.test('every subnet is offered once, whichever is the first', async (t) => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: SUBNET_COUNT - 1 }), (first) => {
      const offered = [...freeSubnets('', first)].map(({ index }) => index);
      return (
        offered[0] === first && new Set(offered).size === SUBNET_COUNT && offered.length === SUBNET_COUNT
      );
    }),
    { numRuns: 10 },
  );
  t.pass();
});

t.test('a subnet that a route overlaps is left out', async (t) => {
  const routes = [
    'default via 192.0.2.1 dev eth0',
    'unreachable default metric 4278198272',
    '0.0.0.0/0 dev vpn',
    '198.18.0.32/27 dev plugpull-1 proto kernel scope link src 198.18.0.33',
    'local 198.18.0.70 dev lo table local proto kernel scope host src 198.18.0.70',
    'broadcast 198.18.0.255 dev x table local',
    '198.18.4.0/22 via 192.0.2.9 dev eth0',
    '',
  ].join('\n');
  const offered = new Set([...freeSubnets(routes, 0)].map(({ index }) => index));
  for (const taken of [1, 2, 7, 32, 63]) t.notOk(offered.has(taken), `${taken}`);
  for (const free of [0, 3, 6, 8, 31, 64]) t.ok(offered.has(free), `${free}`);
  t.same([...freeSubnets('198.16.0.0/12 dev vpn')], [], 'a route of all of them leaves none');
});

t.test(
  'the number of a subnet follows from each of its addresses, and a free one is taken again',
  async (t) => {
    for (const index of [0, 7, SUBNET_COUNT - 1]) {
      const subnet = subnetOf(index);
      t.equal(subnetIndexOf(subnet.kit), index);
      t.equal(subnetIndexOf(subnet.node(0)), index);
      t.equal(freeSubnets('', index).next().value?.index, index);
      const taken = `${subnet.node(0)} dev plugpull-${index} scope link`;
      t.not(freeSubnets(taken, index).next().value?.index, index, 'another network has it');
    }
    t.equal(subnetIndexOf('10.0.0.1'), undefined);
    t.equal(subnetIndexOf('198.20.0.1'), undefined);
  },
);

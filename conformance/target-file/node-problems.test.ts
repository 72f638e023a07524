import t from 'tap';
import { KitError } from '../errors.js';
import type { TargetInput } from './definition.js';
import { defineTarget } from './load.js';
import { expandCommand } from './placeholders.js';

const CLUSTER: TargetInput = {
  name: 'cluster',
  protocol: 'http',
  nodes: ['a', 'b', 'c'],
  services: { server: { command: ['server', '{data}', '{ip}', '{port}', '{peers}', '{ip:b}', '{host}'] } },
  guarantee: {
    faults: ['kill', 'partition'],
    duplicatesPerCrash: 'in-delivery',
    cluster: { tolerates: 1 },
  },
};

/** Returns the text of the error for a target that differs from CLUSTER; '' when it is accepted. */
function problemOf(change: (target: TargetInput) => TargetInput): string {
  try {
    defineTarget(change(CLUSTER), '/targets');
    return '';
  } catch (error) {
    if (error instanceof KitError && error.code === 'bad-target') return error.message;
    throw error;
  }
}

const withGuarantee =
  (guarantee: Partial<TargetInput['guarantee']>, more: Partial<TargetInput> = {}) =>
  (target: TargetInput): TargetInput => ({
    ...target,
    ...more,
    guarantee: { ...target.guarantee, ...guarantee },
  });

t.test('a cluster is accepted, and gets the default time of an election', async (t) => {
  t.equal(
    problemOf((target) => target),
    '',
  );
  const { guarantee } = defineTarget(CLUSTER, '/targets');
  t.strictSame(guarantee.cluster, { tolerates: 1, electionSeconds: 30 });
});

t.test('the placeholders of a cluster stand for its nodes and their addresses', async (t) => {
  const addresses = new Map([
    ['a', '10.0.0.1'],
    ['b', '10.0.0.2'],
    ['c', '10.0.0.3'],
  ]);
  const values = { dir: '/', data: '/d', scratch: '/s', sink: '', node: 'node', ports: new Map([['', 7]]) };
  t.strictSame(
    expandCommand(['{host}', '{ip}', '{ip:b}', '{peers}', '{port}'], {
      ...values,
      cluster: { name: 'c', addresses },
    }),
    ['c', '10.0.0.3', '10.0.0.2', 'a=10.0.0.1,b=10.0.0.2', '7'],
  );
  t.throws(
    () => expandCommand(['{ip}'], values),
    /\{ip\}: expected one of/,
    'a target without nodes has none',
  );
});

t.test('each mistake in the keys of a cluster names the key and what was expected', async (t) => {
  const cases: [change: (target: TargetInput) => TargetInput, expected: RegExp][] = [
    [(target) => ({ ...target, nodes: ['a'] }), /nodes: .*expected at least two nodes/],
    [(target) => ({ ...target, nodes: ['a', 'b', 'a'] }), /nodes\.2: a occurs twice/],
    [(target) => ({ ...target, nodes: ['a', 'B c'] }), /nodes\.1: .*lower-case letters/],
    [
      (target) => ({
        ...target,
        services: { server: { command: ['s', '{data}', '{port}'], nodes: ['a', 'd'] } },
      }),
      /services\.server\.nodes\.1: d: no such node, expected one of a, b, c/,
    ],
    [
      (target) => ({
        ...target,
        services: { server: { command: ['s', '{data}', '{port}'], nodes: ['a', 'b'] } },
      }),
      /nodes\.2: no service runs on c/,
    ],
    [
      (target) => ({ ...target, services: { server: { command: ['s', '{data}', '{port}', '{ip:x}'] } } }),
      /services\.server\.command\.3: \{ip:x\}: no such node, expected one of a, b, c/,
    ],
    [
      withGuarantee({ cluster: { tolerates: 3 } }),
      /cluster\.tolerates: expected a number below 3, the number of nodes, found 3$/,
    ],
    [withGuarantee({ cluster: { tolerates: -1 } }), /cluster\.tolerates: .*a whole number from 0/],
    [
      withGuarantee({ cluster: { tolerates: 1, electionSeconds: 0 } }),
      /cluster\.electionSeconds: .*a number of seconds above 0/,
    ],
    [withGuarantee({ order: 'per-producer' }), /guarantee\.order: expected no claim of an order/],
    [
      withGuarantee({ faults: ['node-loss'], cluster: { tolerates: 0 } }),
      /faults\.0: node-loss: expected guarantee\.cluster\.tolerates of at least 1/,
    ],
    [
      withGuarantee({ faults: ['cut-then-elect'] }, { nodes: ['a', 'b'] }),
      /faults\.0: cut-then-elect: expected at least three nodes/,
    ],
    [
      withGuarantee({ faults: ['kill'] }, { promote: ['promote', '{data}'] }),
      /promote: expected one of partition/,
    ],
  ];
  for (const [change, expected] of cases) t.match(problemOf(change), expected);
  const { cluster: _, ...without } = CLUSTER.guarantee;
  t.match(
    problemOf((target) => ({ ...target, guarantee: without })),
    /guarantee\.cluster: expected/,
  );
});

t.test('a target without nodes has no key of a cluster', async (t) => {
  const single = (target: TargetInput): TargetInput => {
    const { nodes: _, ...rest } = target;
    return { ...rest, services: { server: { command: ['s', '{data}', '{port}'] } } };
  };
  t.match(problemOf(single), /guarantee\.faults\.1: partition: expected nodes/);
  t.match(problemOf(single), /guarantee\.cluster: expected nodes/);
  t.match(
    problemOf((target) => ({ ...single(target), promote: ['promote'] })),
    /promote: expected nodes/,
  );
});

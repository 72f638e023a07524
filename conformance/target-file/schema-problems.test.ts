import t from 'tap';
import { type TargetInput, targetJsonSchema } from './definition.js';
import { defineTarget, TargetFileError } from './load.js';

/** A valid definition that has every key of a target without nodes. */
const COMPLETE: TargetInput = {
  $schema: 'target.schema.json',
  name: 'complete',
  protocol: 'smtp',
  services: {
    server: {
      command: ['{dir}/queue', '{data}', '{port:a}', '{sink}'],
      image: 'an/image',
      env: { QUEUE_HOME: '{data}' },
      user: 'nobody',
    },
  },
  install: ['{dir}/install', '{data}'],
  submit: ['a'],
  verify: ['{dir}/verify', '{data}'],
  files: { index: ['*.index'], messages: ['*.data'], scratch: ['*.shm'] },
  nudge: ['{dir}/flush', '{data}'],
  sources: ['src'],
  crashStates: { install: ['{dir}/install'], restore: ['{dir}/restore'], queue: 'queue' },
  guarantee: {
    faults: ['kill', 'index-loss', 'data-rot'],
    duplicatesPerCrash: 0,
    duplicatesPerPowerCut: { consumedWithinSeconds: 3 },
    duplicatesAfterIndexLoss: 'unbounded',
    inDeliveryPerSession: 8,
    recoverySeconds: 30,
    redeliverySeconds: 30,
    headers: 'may-be-completed',
    order: 'per-producer',
  },
};

/** A valid definition that has every key of a cluster. */
const CLUSTER: TargetInput = {
  name: 'cluster',
  protocol: 'http',
  nodes: ['a', 'b', 'c'],
  services: {
    server: {
      command: ['{dir}/queue', '{data}', '{port}', '{ip}', '{ip:b}', '{host}', '{peers}'],
      nodes: ['a', 'b', 'c'],
    },
  },
  promote: ['{dir}/promote', '{data}'],
  guarantee: {
    faults: ['partition', 'cut-then-elect', 'node-loss'],
    duplicatesPerCrash: 0,
    cluster: { tolerates: 1, electionSeconds: 30 },
  },
};

const WRONG_VALUES: readonly unknown[] = [
  undefined,
  null,
  true,
  -1,
  0,
  0.5,
  1e300,
  Number.POSITIVE_INFINITY,
  '',
  '-',
  ' ',
  'x'.repeat(1000),
  'two\nlines',
  [],
  [null],
  [''],
  [[]],
  [-1],
  {},
  { x: 1 },
  { 'a b': 1 },
  { x: {} },
  { x: null, y: null },
  { consumedWithinSeconds: -1 },
  { consumedWithinSeconds: null },
  { consumedWithinSeconds: 1, more: 2 },
];

/** Words of the validator zod, which mean nothing to the author of a target file. */
const VALIDATOR_TEXT = /Too (?:small|big)|Invalid|Unrecognized|received|must match|>=|<=|NaN|undefined|safe/;
/** What each problem looks like: the path of the key, then what was expected. */
const PROBLEM = /^[^\n]+: (?:unknown key, |bad key, |unknown placeholder [^\n]+, )?[^\n]*expected [^\n]+$/;

type Path = readonly (string | number)[];

/** Returns the path of every value of a definition. */
function pathsOf(value: unknown, path: Path = []): Path[] {
  const children = typeof value === 'object' && value !== null ? Object.entries(value) : [];
  const key = (name: string) => (Array.isArray(value) ? Number(name) : name);
  return [path, ...children.flatMap(([name, child]) => pathsOf(child, [...path, key(name)]))];
}

/** Returns a copy of a definition with another value at a path; undefined removes the key. */
function withValue(definition: unknown, [key, ...rest]: Path, value: unknown): unknown {
  if (key === undefined) return value;
  const copy: Record<string | number, unknown> = Array.isArray(definition)
    ? ([...(definition as unknown[])] as unknown as Record<number, unknown>)
    : { ...(definition as Record<string, unknown>) };
  copy[key] = withValue(copy[key], rest, value);
  if (copy[key] === undefined) delete copy[key];
  return copy;
}

function problemsOf(definition: unknown): readonly string[] {
  try {
    defineTarget(definition as TargetInput, '/somewhere');
    return [];
  } catch (error) {
    if (error instanceof TargetFileError) return error.problems;
    throw error;
  }
}

t.test('every wrong value of every key gets one line in the words of the kit', async (t) => {
  for (const [definition, least] of [
    [COMPLETE, 700],
    [CLUSTER, 500],
  ] as const) {
    t.same(problemsOf(definition), [], `the definition ${definition.name} is valid`);
    let answers = 0;
    for (const path of pathsOf(definition)) {
      if (path.length === 0) continue;
      for (const value of WRONG_VALUES) {
        for (const problem of problemsOf(withValue(definition, path, value))) {
          answers++;
          if (VALIDATOR_TEXT.test(problem.replace(/, found .*/, '')) || !PROBLEM.test(problem))
            t.fail(`${path.join('.')} = ${JSON.stringify(value)}: ${problem}`);
        }
      }
    }
    t.ok(answers > least, `${answers} answers were looked at`);
  }
});

t.test('each key of the schema is in one of the two definitions', async (t) => {
  const found = new Set<string>();
  const walk = (schema: unknown, value: unknown, path: string): string[] => {
    if (typeof schema !== 'object' || schema === null) return [];
    const { properties, additionalProperties } = schema as {
      properties?: Record<string, unknown>;
      additionalProperties?: unknown;
    };
    const record = (typeof value === 'object' && value !== null ? value : {}) as Record<string, unknown>;
    const own = Object.entries(properties ?? {}).flatMap(([key, child]) => {
      if (record[key] !== undefined) found.add(`${path}.${key}`);
      return [`${path}.${key}`, ...walk(child, record[key], `${path}.${key}`)];
    });
    const others = Object.entries(record).flatMap(([key, child]) =>
      walk(additionalProperties, child, `${path}.${key}`),
    );
    return [...own, ...others];
  };
  const schema: unknown = JSON.parse(targetJsonSchema());
  const keys = [COMPLETE, CLUSTER].flatMap((definition) => walk(schema, definition, ''));
  t.ok(keys.length > 50, `${keys.length} keys`);
  t.same(
    keys.filter((key) => !found.has(key)),
    [],
  );
});

t.test('unknown keys get one line each, with the key that was probably meant', async (t) => {
  const { guarantee, ...rest } = COMPLETE;
  const definition = {
    ...rest,
    gaurantee: guarantee,
    servces: {},
    guarantee: { ...guarantee, recoverSeconds: 1 },
  };
  const unknown = problemsOf(definition).filter((problem) => problem.includes('unknown key'));
  t.equal(unknown.length, 3);
  t.match(unknown, [
    /^guarantee\.recoverSeconds: unknown key, .* \(did you mean recoverySeconds\?\)$/,
    /^gaurantee: unknown key, .* \(did you mean guarantee\?\)$/,
    /^servces: unknown key, .* \(did you mean services\?\)$/,
  ]);
});

t.test('a key that is missing because it is misspelt gets no second line', async (t) => {
  const { guarantee, services, ...rest } = COMPLETE;
  t.match(problemsOf({ ...rest, services, garantee: guarantee }), [
    /^garantee: unknown key, .* \(did you mean guarantee\?\)$/,
  ]);
  const { recoverySeconds, ...others } = guarantee;
  t.match(problemsOf({ ...rest, services, guarantee: { ...others, faluts: ['kill'], faults: 1 } }), [
    /^guarantee\.faults: expected .*, found 1$/,
    /^guarantee\.faluts: unknown key, .* \(did you mean faults\?\)$/,
  ]);
  const lines = problemsOf({ ...rest, garantee: guarantee, other: 1 });
  t.match(lines[0], /^services: expected .*, found nothing$/, 'a key that nothing stands for has its line');
});

t.test(
  'misspelt faults, protocols, bounds and placeholders get the word that was probably meant',
  async (t) => {
    const cases: [Path, unknown, RegExp][] = [
      [['protocol'], 'stmp', /^protocol: expected one of .*, found "stmp" \(did you mean smtp\?\)$/],
      [['guarantee', 'faults', 0], 'kil', /found "kil" \(did you mean kill\?\)$/],
      [['guarantee', 'duplicatesPerCrash'], 'in-delivry', /\(did you mean in-delivery\?\)$/],
      [['guarantee', 'headers'], 'may-be-complete', /\(did you mean may-be-completed\?\)$/],
      [['install', 1], '{dta}', /^install\.1: unknown placeholder \{dta\}, .* \(did you mean \{data\}\?\)$/],
      [
        ['guarantee', 'duplicatesPerCrash'],
        -1,
        /duplicatesPerCrash: expected a whole number from 0, .*, found -1$/,
      ],
      [
        ['guarantee', 'recoverySeconds'],
        -3,
        /recoverySeconds: expected a number of seconds above 0, found -3$/,
      ],
    ];
    for (const [path, value, expected] of cases)
      t.match(problemsOf(withValue(COMPLETE, path, value)), [expected], path.join('.'));
  },
);

t.test('a claim that the other keys do not support is a problem', async (t) => {
  t.match(problemsOf(withValue(COMPLETE, ['files'], undefined)), [
    /^guarantee\.faults\.1: index-loss damages the files that files\.index names, expected at least one/,
    /^guarantee\.faults\.2: data-rot damages the files that files\.messages names, expected at least one/,
  ]);
  t.match(problemsOf(withValue(COMPLETE, ['services', 'server', 'command', 3], 'x')), [
    /^services: expected \{sink\} in the command or env of a service: a target of the protocol smtp delivers to it$/,
  ]);
  t.same(
    problemsOf(
      withValue(
        withValue(COMPLETE, ['services', 'server', 'command', 3], 'x'),
        ['services', 'server', 'env', 'NEXT_HOP'],
        '{sink}',
      ),
    ),
    [],
    'a variable may hold the address',
  );
});

import t from 'tap';
import { TargetDefinition, targetJsonSchema } from './definition.js';
import { KEY_EXAMPLES, withExample } from './key-examples.js';

interface Schema {
  properties?: Record<string, Schema>;
  additionalProperties?: Schema | false;
}

/** Lists the paths of all keys; a service is called `*`. */
function keyPaths({ properties = {} }: Schema, prefix = ''): string[] {
  return Object.entries(properties).flatMap(([key, schema]) => {
    const path = `${prefix}${key}`;
    const each = key === 'services' ? schema.additionalProperties : undefined;
    return [
      path,
      ...keyPaths(schema, `${path}.`),
      ...(each ? [`${path}.*`, ...keyPaths(each, `${path}.*.`)] : []),
    ];
  });
}

t.test('every key of a target file has an example, and every example is valid', async (t) => {
  const paths = keyPaths(JSON.parse(targetJsonSchema()) as Schema);
  t.ok(paths.length > 25, `${paths.length} keys`);
  t.same(Object.keys(KEY_EXAMPLES).sort(), paths.sort());
  for (const [path, example] of Object.entries(KEY_EXAMPLES)) {
    const whole: Record<string, unknown> = {
      name: 'q',
      protocol: 'http',
      services: { server: { command: ['x'] } },
      guarantee: { faults: ['kill'], duplicatesPerCrash: 0, cluster: { tolerates: 0 } },
      files: {},
      crashStates: {},
    };
    const words = path.replace('*', 'server').split('.');
    const last = words.pop() ?? '';
    const parent = words.reduce((object, word) => object[word] as Record<string, unknown>, whole);
    parent[last] = example;
    const parsed = TargetDefinition.safeParse(whole);
    t.ok(parsed.success, `${path}: ${parsed.error?.message}`);
  }
});

t.test(
  'a problem gets the example of its key, of the key that was meant, or of the list around it',
  async (t) => {
    const end = (problem: string) => withExample(problem).slice(problem.length);
    t.equal(end('guarantee.recoverySeconds: expected a number'), '; for example "recoverySeconds": 30');
    t.equal(
      end('guarantee.recoverSeconds: unknown key, expected one of x (did you mean recoverySeconds?)'),
      '; for example "recoverySeconds": 30',
    );
    t.equal(
      end('guarantee.faults.0: expected one of kill, found "kil"'),
      '; for example "faults": ["kill","pause","power-cut"]',
    );
    t.equal(
      end('guarantee.cluster.tolerates: expected a number below 3, the number of nodes, found 3'),
      '; for example "tolerates": 1',
    );
    t.match(end('services.server.command: expected a list'), '; for example "command": ["{dir}/queue",');
    t.match(end('services.server.env.QUEUE: unknown placeholder'), '; for example "env": {');
    t.equal(end('nonsense: unknown key, expected one of x'), '');
    t.equal(end('(the whole): expected an object'), '');
  },
);

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { KitError } from '../errors.js';
import { REFERENCE_TARGET, TARGET_SCHEMA } from '../targets/reference.js';
import { TargetDefinition, type TargetInput, targetJsonSchema } from './definition.js';
import { defineTarget, loadTarget } from './load.js';
import { expandCommand, expandVariables, portNames, submitPorts } from './placeholders.js';

const dir = mkdtempSync(join(tmpdir(), 'plugpull-target-'));
t.teardown(() => rmSync(dir, { recursive: true, force: true }));

const GOOD: TargetInput = {
  name: 'my-queue',
  protocol: 'http',
  services: { server: { command: ['python3', '{dir}/server.py', '--data', '{data}', '--port', '{port}'] } },
  guarantee: { faults: ['kill', 'tear', 'power-cut'], duplicatesPerCrash: 0, recoverySeconds: 30 },
};

function write(text: string): string {
  const file = join(dir, `${Math.random().toString(36).slice(2)}.json`);
  writeFileSync(file, text);
  return file;
}

function failure(act: () => unknown): KitError {
  try {
    act();
  } catch (error) {
    if (error instanceof KitError) return error;
    throw error;
  }
  throw new Error('expected a KitError');
}

t.test('a small target file loads, and {dir} is the folder of the file', async (t) => {
  const target = loadTarget(write(JSON.stringify(GOOD)));
  t.equal(target.dir, dir);
  t.same(submitPorts(target), ['']);
  t.same(portNames(target), ['']);
  t.equal(target.guarantee.recoverySeconds, 30);
});

t.test('the target file of the synchronous reference implementation loads', async (t) => {
  const target = loadTarget(REFERENCE_TARGET);
  t.equal(target.protocol, 'smtp');
  t.same(submitPorts(target), portNames(target));
  t.ok(target.verify);
});

t.test(
  'an error in a target file names file, key path and expected value, and means exit code 2',
  async (t) => {
    const cases: [string, unknown, RegExp][] = [
      ['unknown key', { ...GOOD, servces: {} }, /servces: unknown key, expected one of .*services/],
      ['no services', { ...GOOD, services: {} }, /services: expected at least one service/],
      [
        'wrong protocol',
        { ...GOOD, protocol: 'ftp' },
        /protocol: expected one of http, smtp, beanstalk, redis-stream, redis-list, redis-wait, postgres, amqp/,
      ],
      [
        'command as text',
        { ...GOOD, services: { server: { command: 'node x' } } },
        /services\.server\.command: expected a list/,
      ],
      [
        'wrong fault',
        { ...GOOD, guarantee: { ...GOOD.guarantee, faults: ['kil'] } },
        /guarantee\.faults\.0: expected one of kill/,
      ],
      [
        'wrong bound',
        { ...GOOD, guarantee: { ...GOOD.guarantee, duplicatesPerCrash: 'some' } },
        /duplicatesPerCrash: expected a whole number/,
      ],
      [
        'misspelt guarantee',
        { ...GOOD, guarantee: { ...GOOD.guarantee, recoverSeconds: 3 } },
        /guarantee\.recoverSeconds: unknown key/,
      ],
      [
        'wrong order',
        { ...GOOD, guarantee: { ...GOOD.guarantee, order: 'global' } },
        /guarantee\.order: expected "per-producer"/,
      ],
      [
        'order over several connections',
        {
          ...GOOD,
          services: { s: { command: ['x', '{data}', '{port:a}', '{port:b}'] } },
          submit: ['a', 'b'],
          guarantee: { ...GOOD.guarantee, order: 'per-producer' },
        },
        /guarantee\.order: expected one port in submit: over http/,
      ],
      ['unknown placeholder', { ...GOOD, install: ['{dit}/x'] }, /install\.0: unknown placeholder \{dit\}/],
      ['sink at install', { ...GOOD, install: ['x', '{sink}'] }, /install\.1: unknown placeholder \{sink\}/],
      ['unused port', { ...GOOD, submit: ['a'] }, /submit\.0: expected \{port:a\}/],
      ['no port', { ...GOOD, services: { s: { command: ['x'] } } }, /services: expected \{port\}/],
      ['not an object', [], /\(the whole\): expected an object/],
    ];
    for (const [name, json, expected] of cases) {
      const file = write(JSON.stringify(json));
      const error = failure(() => loadTarget(file));
      t.match(error.message, expected, name);
      t.ok(error.message.startsWith(file), `${name}: names the file`);
      t.notMatch(error.message, /\n/, `${name}: one line`);
      t.equal(error.exitCode, 2);
    }
  },
);

t.test('the error for a file that is missing or not JSON names the file', async (t) => {
  t.match(
    failure(() => loadTarget(join(dir, 'none.json'))).message,
    /none\.json: expected a target file.*ENOENT/,
  );
  const error = failure(() => loadTarget(write('{\n  "name": "x",\n  oops\n}')));
  t.match(error.message, /expected JSON: .*\(line 3, column 3\)/);
  t.equal(error.code, 'bad-target');
});

t.test('placeholders are replaced, and other braces are left alone', async (t) => {
  const values = {
    dir: '/d',
    data: '/v',
    sink: '127.0.0.1:25',
    scratch: '/s',
    node: '/bin/node',
    ports: new Map([
      ['', 1],
      ['a', 2],
    ]),
  };
  const shell = ['$', '{HOME}'].join('');
  t.same(
    expandCommand(
      ['{node}', '{dir}/x', '{data}', '{scratch}', '{port}:{port:a}', '{sink}', '{"a":1}', shell],
      values,
    ),
    ['/bin/node', '/d/x', '/v', '/s', '1:2', '127.0.0.1:25', '{"a":1}', shell],
  );
});

t.test('an unknown placeholder is also an error when a command is expanded', async (t) => {
  const values = {
    dir: '/d',
    data: '/v',
    scratch: '/s',
    sink: 's',
    node: 'n',
    ports: new Map<string, number>(),
  };
  for (const word of ['{prot}', '{port:b}', '{dir:x}']) {
    t.match(failure(() => expandCommand([word], values)).message, /expected one of \{dir\}/);
  }
});

t.test(
  'values of environment variables have placeholders, which are checked and whose ports count',
  async (t) => {
    const withEnv = (env: Record<string, string>) => ({
      ...GOOD,
      services: { server: { command: ['/bin/true', '{scratch}/conf'], env } },
    });
    const target = defineTarget(withEnv({ A: '{scratch}/a:{port:extra}', PORT: '{port}' }), '/somewhere');
    t.same(portNames(target), ['extra', '']);
    const values = {
      dir: '/d',
      data: '/v',
      scratch: '/s',
      sink: '',
      node: 'n',
      ports: new Map([['extra', 7]]),
    };
    t.same(expandVariables({ A: '{scratch}/a:{port:extra}', B: 'b' }, values), { A: '/s/a:7', B: 'b' });
    t.match(
      failure(() => defineTarget(withEnv({ PORT: '{port}', B: '{scrach}' }), '/somewhere')).message,
      /services.server.env.B: unknown placeholder \{scrach\}, expected one of .*\{scratch\}/,
    );
  },
);

t.test('a target defined in code is checked like a file', async (t) => {
  t.equal(defineTarget(GOOD, '/somewhere').dir, '/somewhere');
  t.match(failure(() => defineTarget({ ...GOOD, name: '' }, '.')).message, /^target : name: expected a name/);
});

t.test('the published JSON Schema equals the schema that the code checks', async (t) => {
  if (process.env.PLUGPULL_WRITE_SCHEMA) writeFileSync(TARGET_SCHEMA, targetJsonSchema());
  t.same(JSON.parse(readFileSync(TARGET_SCHEMA, 'utf8')), JSON.parse(targetJsonSchema()));
});

t.test('every key of a target definition has a description', async (t) => {
  const undescribed: string[] = [];
  const walk = (node: unknown, path: string) => {
    if (typeof node !== 'object' || node === null) return;
    const { properties } = node as { properties?: Record<string, { description?: string }> };
    for (const [key, child] of Object.entries(properties ?? {})) {
      if (!child.description) undescribed.push(`${path}.${key}`);
    }
    for (const [key, child] of Object.entries(node)) walk(child, `${path}.${key}`);
  };
  walk(JSON.parse(targetJsonSchema()), '');
  t.same(
    undescribed.filter((path) => !path.endsWith('consumedWithinSeconds')),
    [],
  );
  t.ok(TargetDefinition);
});

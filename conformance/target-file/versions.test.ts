import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import t from 'tap';
import { TARGET_SCHEMA } from '../targets/reference.js';
import { defineTarget, loadTarget, TargetFileError } from './load.js';
import { TARGET_FILE_VERSION, TARGET_SCHEMA_URL } from './versions.js';

const OLDER_TARGETS = join(dirname(TARGET_SCHEMA), '../fixtures/older-targets');

/** A valid target file, as JSON. */
const TARGET = JSON.stringify({
  name: 'x',
  protocol: 'http',
  services: { server: { command: ['queue', '{data}', '{port}'] } },
  guarantee: { faults: ['kill'], duplicatesPerCrash: 0, recoverySeconds: 30 },
});

function problemsOf(change: Record<string, unknown>): readonly string[] {
  try {
    defineTarget({ ...JSON.parse(TARGET), ...change }, '/somewhere');
    return [];
  } catch (error) {
    if (error instanceof TargetFileError) return error.problems;
    throw error;
  }
}

t.test('target files of every earlier form are still read', async (t) => {
  const names = readdirSync(OLDER_TARGETS);
  t.ok(names.length >= 11, `${names.length} files`);
  for (const name of names) {
    const file = join(OLDER_TARGETS, name);
    const { name: expected } = JSON.parse(readFileSync(file, 'utf8')) as { name: string };
    t.equal(loadTarget(file).name, expected, name);
  }
});

t.test('the names of files in crash states, which 0.1.0 had, are read and not used', async (t) => {
  const file = join(OLDER_TARGETS, 'reference-crash-state-files.json');
  t.match(readFileSync(file, 'utf8'), /"files": \{ "data": /, 'the fixture has the key');
  t.same(Object.keys(loadTarget(file).crashStates ?? {}).sort(), ['install', 'queue', 'restore']);
  const crashStates = { restore: ['restore'], queue: 'queue', files: { other: 1 } };
  t.match(problemsOf({ crashStates }), [/^crashStates\.files: unknown key/], 'anything else is an error');
});

t.test('a target file may name the schema of its own version', async (t) => {
  t.equal(TARGET_SCHEMA_URL, `https://plugpull.dev/schemas/target/v${TARGET_FILE_VERSION}.json`);
  for (const $schema of [
    TARGET_SCHEMA_URL,
    'node_modules/plugpull/x.json',
    'https://example.org/target/v9.json',
  ])
    t.same(problemsOf({ $schema }), [], $schema);
});

t.test('a target file of a newer version is one clear problem, whatever else is in it', async (t) => {
  const $schema = 'https://plugpull.dev/schemas/target/v2.json';
  const expected = [
    '$schema: expected version 1 of target files or an older one, found version 2: use a newer PlugPull',
  ];
  t.same(problemsOf({ $schema, services: undefined, future: true }), expected);
  const file = join(t.testdir(), 'target.json');
  writeFileSync(file, JSON.stringify({ $schema }));
  t.throws(() => loadTarget(file), { code: 'bad-target', exitCode: 2, message: `${file}: ${expected[0]}` });
});

t.test('the published schema has the address of its version', async (t) => {
  t.match(JSON.parse(readFileSync(TARGET_SCHEMA, 'utf8')), { $id: TARGET_SCHEMA_URL });
});

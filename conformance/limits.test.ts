import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { parseBoundedJson } from './bounded-json.js';
import { DEFAULT_LIMITS, type LimitName, limit } from './limits.js';
import { loadTarget } from './target-file/load.js';

t.afterEach(() => {
  delete process.env.PLUGPULL_LIMITS;
});

t.test('PLUGPULL_LIMITS changes the limits that it names', async (t) => {
  t.equal(limit('kept-runs'), DEFAULT_LIMITS['kept-runs']);
  process.env.PLUGPULL_LIMITS = 'kept-runs=3, json-depth=7,';
  t.equal(limit('kept-runs'), 3);
  t.equal(limit('json-depth'), 7);
  t.equal(limit('json-values'), DEFAULT_LIMITS['json-values']);
});

t.test('a wrong PLUGPULL_LIMITS is reported with what was expected', async (t) => {
  for (const text of [
    'nonsense',
    'kept-runs',
    'kept-runs=many',
    'kept-runs=-1',
    'toString=1',
    '__proto__=1',
  ]) {
    process.env.PLUGPULL_LIMITS = text;
    const message = new RegExp(
      `^PLUGPULL_LIMITS: ${text}: expected NAME=NUMBER with one of target-file-bytes, `,
    );
    t.throws(() => limit('kept-runs'), { code: 'bad-usage', exitCode: 2, message }, text);
  }
});

t.test('JSON is parsed as usual within the limits of values and levels', async (t) => {
  const parse = (text: string) => parseBoundedJson(Buffer.from(text));
  const value = { a: [1, 'x,[{"\\', null, { 'b\\"[': true }], ü: 'ü' };
  t.same(parse(JSON.stringify(value)), value);
  t.throws(() => parse('{"a":'), SyntaxError);
  process.env.PLUGPULL_LIMITS = 'json-depth=3,json-values=10';
  t.same(parse('[[["[[[[[[,,,,,,,,,,,,,,,,,,,"]]]'), [[['[[[[[[,,,,,,,,,,,,,,,,,,,']]]);
  t.throws(() => parse('[[[[]]]]'), /it has more than 3 levels of lists and objects/);
  t.throws(() => parse('[1,2,3,4,5,6,7,8,9,10]'), /it has more than 10 values/);
  t.throws(() => parse('[{},{},{},{},{},{}]'), /it has more than 10 values/);
  t.throws(() => parse('["\\"'), SyntaxError);
});

t.test('a target file that is a bomb is refused in one line', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'plugpull-limits-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  const file = join(dir, 'target.json');
  const refused = (text: string, message: RegExp) => {
    writeFileSync(file, text);
    t.throws(() => loadTarget(file), { code: 'bad-target', exitCode: 2, message });
  };
  refused('['.repeat(1 << 20), /target.json: expected JSON: it has more than 100 levels/);
  process.env.PLUGPULL_LIMITS = 'json-values=1000,target-file-bytes=100000';
  refused(`[${'[],'.repeat(1000)}[]]`, /expected JSON: it has more than 1000 values/);
  refused(' '.repeat(100_001), /expected a target file: it has 100001 bytes, more than 100000/);
});

t.test('the manual lists every limit with its default', async (t) => {
  const manual = readFileSync(join(import.meta.dirname, '../../scenarios/README.md'), 'utf8');
  for (const [name, value] of Object.entries(DEFAULT_LIMITS) as [LimitName, number][])
    t.ok(
      manual.includes(`| \`${name}\` | ${value.toLocaleString('en')} |`),
      `${name} ${value.toLocaleString('en')}`,
    );
});

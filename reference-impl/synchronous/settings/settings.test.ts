import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import t, { type Test } from 'tap';
import { parseDurationMs, parseSize } from '../../common/cli/units.js';
import { QueueError } from '../../common/platform/errors.js';
import { flagLayer, settingFlags, settingsJsonSchema } from './flags.js';
import { installedText, loadSettings, parseSettings } from './load.js';

const MIB = 2 ** 20;
const REPOSITORY = new URL('../../../../', import.meta.url);

/** Creates a directory with the given files and removes it after the test. */
function directoryWith(test: Test, files: Record<string, string>): string {
  const directory = mkdtempSync(join(tmpdir(), 'plugpull-settings-'));
  test.teardown(() => rmSync(directory, { recursive: true }));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(directory, name), text);
  return directory;
}

/** Calls `act` and returns the message of the usage error that it throws. */
function complaint(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    if (error instanceof QueueError && error.exitCode === 2) return error.message;
    throw error;
  }
  throw new Error('no complaint');
}

t.test('settings that give only the directory are completed with defaults', async (t) => {
  const settings = parseSettings({ directory: '/q' });
  t.strictSame(settings.pairs, [{ directory: '/q/0', indexDirectory: '/q/0' }]);
  t.equal(settings.dataBytes, 64 * MIB);
  t.equal(settings.maxRecordBytes, 16 * MIB);
  t.equal(settings.deadLetter.directory, '/q/dead');
  t.ok(
    settings.smtp.maxMessageBytes < settings.maxRecordBytes,
    'the largest message and its envelope fit into a record',
  );
});

t.test('sizes and durations accept units, and only whole results', async (t) => {
  t.equal(parseSize('64MiB'), 64 * MIB);
  t.equal(parseSize('1GB'), 1e9);
  t.equal(parseSize('1.5KiB'), 1536);
  t.equal(parseSize('512'), 512);
  t.equal(parseDurationMs('250ms'), 250);
  t.equal(parseDurationMs('10s'), 10_000);
  t.equal(parseDurationMs('2min'), 120_000);
  for (const text of ['', '1TX', '-1', '1.3', '0x10', '1e3', 'MiB', '99999999TiB'])
    t.equal(parseSize(text), undefined);
});

t.test('parseSize multiplies a whole number by its unit', async (t) => {
  fc.assert(
    fc.property(
      fc.nat(1_000_000),
      fc.constantFrom(['KiB', 1024], ['MB', 1e6], ['', 1]),
      (count, [unit, factor]) => {
        t.equal(parseSize(`${count}${unit}`), count * Number(factor));
      },
    ),
    { numRuns: 50 },
  );
});

t.test('an error about a setting names file, key path, found value and expected value', async (t) => {
  const cases: [unknown, RegExp][] = [
    [
      { dataBytes: '1TX' },
      /c\.json: dataBytes: found "1TX", expected a size such as 64MiB.* multiple of 4096$/,
    ],
    [{ dataBytes: 5000 }, /dataBytes: found 5000, expected a size/],
    [
      { smtp: { port: 70_000 } },
      /c\.json: smtp\.port: found 70000, expected a whole number from 0 to 65535$/,
    ],
    [{ smtp: { prot: 1 } }, /c\.json: smtp\.prot: unknown setting, expected one of host, port/],
    [{ foo: 1 }, /c\.json: foo: unknown setting, expected one of directory, pairs/],
    [{ sync: 7 }, /c\.json: sync: found 7, expected an object$/],
    [{ delivery: { nextHop: 'there' } }, /delivery\.nextHop: found "there", expected host:port/],
    [{ delivery: { nextHop: 'there:0' } }, /delivery\.nextHop: found "there:0", expected host:port/],
    [
      { delivery: { routes: { 'a.example': 5 } } },
      /delivery\.routes\.a\.example: found 5, expected host:port/,
    ],
    [{ pairs: [] }, /pairs: found \[\], expected a list of one or more pairs/],
    [
      { pairs: [{ directory: 'a' }, { directory: './a' }] },
      /pairs: .*expected a directory of its own for each pair/,
    ],
    [{ pairs: [{ index: 'a' }] }, /pairs\.0\./],
    [{ maxRecordBytes: '32MiB' }, /maxRecordBytes: found "32MiB", expected less than half of dataBytes/],
    [{ smtp: { maxMessageBytes: '16MiB' } }, /smtp\.maxMessageBytes: found "16MiB", expected at most/],
    [
      { smtp: { maxBufferedBytes: '1MiB' } },
      /smtp\.maxBufferedBytes: found "1MiB", expected at least maxMessageBytes/,
    ],
    [{ deadLetter: { dataBytes: '1MiB' } }, /deadLetter\.dataBytes: found "1MiB", expected more than twice/],
    [
      { smtp: { maxRecipients: 99 } },
      /smtp\.maxRecipients: found 99, expected a whole number from 100 to 10000$/,
    ],
    [{ sync: { writeOnMisfit: 'yes' } }, /sync\.writeOnMisfit: found "yes", expected true or false/],
    [[], /c\.json: found \[\], expected a JSON object/],
  ];
  for (const [content, expected] of cases) {
    const directory = directoryWith(t, { 'c.json': JSON.stringify(content) });
    const configFile = join(directory, 'c.json');
    const message = complaint(() => loadSettings({ directory, configFile, installed: 'none' }));
    t.match(message, expected);
    t.notMatch(message, /\n/, 'the message is one line');
  }
});

t.test('an error about a settings file that is missing or not JSON names the file', async (t) => {
  const directory = directoryWith(t, { 'bad.json': '{ "a": ' });
  const load = (name: string) => () =>
    loadSettings({ directory, configFile: join(directory, name), installed: 'none' });
  t.match(complaint(load('bad.json')), /bad\.json: .*expected JSON$/);
  t.match(complaint(load('none.json')), /none\.json: cannot be read \(ENOENT\), expected a JSON file/);
  t.match(
    complaint(() => loadSettings({ installed: 'none' })),
    /no queue directory: give --queue DIR/,
  );
});

t.test('flags override the file, which overrides the installed settings and the defaults', async (t) => {
  const directory = directoryWith(t, {
    'c.json': JSON.stringify({ smtp: { port: 25, hostname: 'from.file' } }),
  });
  const installed = parseSettings({
    directory,
    smtp: { port: 2, hostname: 'installed', maxRecipients: 107 },
  });
  writeFileSync(join(directory, 'queue.json'), installedText(installed));
  const flags = flagLayer(new Map([['smtp-port', '99']]));
  const { smtp, indexSyncMs } = loadSettings({
    directory,
    configFile: join(directory, 'c.json'),
    flags,
    installed: 'needed',
  });
  t.match(smtp, { port: 99, hostname: 'from.file', maxRecipients: 107 });
  t.equal(indexSyncMs, 10_000);
});

t.test('every setting has a flag, and an error about its value names the flag', async (t) => {
  const names = settingFlags().map(({ name }) => name);
  for (const name of ['smtp-port', 'next-hop', 'data-bytes', 'sync-max-batch-bytes', 'dead-letter-entries']) {
    t.ok(names.includes(name), name);
  }
  const flags = flagLayer(new Map([['sync-max-gap-pages', 'many']]));
  const message = complaint(() => loadSettings({ directory: '/q', flags, installed: 'none' }));
  t.match(message, /^--sync-max-gap-pages: found "many", expected a whole number/);
  const wrongRoute = () => flagLayer(new Map([['routes', 'nonsense']]));
  t.match(complaint(wrongRoute), /^--routes: found "nonsense", expected domain=host:port/);
});

t.test('flags can set lists, maps, null and booleans', async (t) => {
  const given = new Map([
    ['pairs', 'a=/index/a,b'],
    ['routes', 'One.example=10.0.0.1:25,two.example=[::1]:26'],
    ['sync-max-gap-bytes', 'null'],
    ['sync-write-on-misfit', 'false'],
  ]);
  const settings = loadSettings({ directory: '/q', flags: flagLayer(given), installed: 'none' });
  t.strictSame(settings.pairs, [
    { directory: '/q/a', indexDirectory: '/index/a' },
    { directory: '/q/b', indexDirectory: '/q/b' },
  ]);
  t.strictSame(settings.delivery.routes, { 'one.example': '10.0.0.1:25', 'two.example': '[::1]:26' });
  t.equal(settings.sync.maxGapBytes, null);
  t.equal(settings.sync.writeOnMisfit, false);
});

t.test('an installed queue keeps its geometry when its directory is moved', async (t) => {
  const installed = parseSettings({
    directory: '/elsewhere',
    dataBytes: '4MiB',
    entries: 16,
    pairs: [{ directory: 'x' }],
  });
  const directory = directoryWith(t, { 'queue.json': installedText(installed) });
  const settings = loadSettings({ directory, installed: 'needed' });
  t.equal(settings.dataBytes, 4 * MIB);
  t.equal(settings.pairs[0]?.directory, join(directory, 'x'));
  const other = flagLayer(new Map([['entries', '32']]));
  const message = complaint(() => loadSettings({ directory, flags: other, installed: 'needed' }));
  t.match(message, /^--entries: found 32, expected 16 as the queue was installed/);
  const same = flagLayer(new Map([['data-bytes', '4096KiB']]));
  t.equal(loadSettings({ directory, flags: same, installed: 'needed' }).dataBytes, 4 * MIB);
});

t.test('loading settings from a directory without a queue is an error', async (t) => {
  const directory = directoryWith(t, {});
  t.match(
    complaint(() => loadSettings({ directory, installed: 'needed' })),
    /queue\.json: not found, expected an installed queue/,
  );
});

t.test('a settings file may tell an editor where its schema is', async (t) => {
  const directory = directoryWith(t, {
    'queue.json': JSON.stringify({ $schema: 'x.json', dataBytes: '4MiB' }),
  });
  t.equal(loadSettings({ directory, installed: 'needed' }).dataBytes, 4 * MIB);
});

t.test('the published JSON Schema matches the settings', async (t) => {
  const file = new URL('reference-impl/synchronous/settings/queue.schema.json', REPOSITORY);
  const schema: unknown = JSON.parse(JSON.stringify(settingsJsonSchema()));
  // TAP_SNAPSHOT=1 is the variable by which tap updates its snapshots.
  if (process.env.TAP_SNAPSHOT === '1') writeFileSync(file, `${JSON.stringify(schema, null, 2)}\n`);
  const published: unknown = JSON.parse(readFileSync(file, 'utf8'));
  t.strictSame(published, schema, 'if the settings have changed, run this test with TAP_SNAPSHOT=1');
});

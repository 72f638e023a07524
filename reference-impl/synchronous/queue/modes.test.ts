import { chmodSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { runQueueCommand, Service } from '../gateway/fixtures/processes.js';
import { parseSettings } from '../settings/load.js';
import { openDirectories } from './modes.js';

const SMALL = ['--data-bytes', '1MiB', '--entries', '64'];

function temporaryDirectory(test: Test): string {
  const directory = mkdtempSync(join(tmpdir(), 'plugpull-modes-'));
  test.teardown(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** Returns the modes of a file tree, by path: octal permission bits, which do not depend on the umask of the test. */
function modesBelow(directory: string): Map<string, string> {
  const paths = readdirSync(directory, { recursive: true, encoding: 'utf8' });
  return new Map(
    ['.', ...paths].map((path) => [path, (lstatSync(join(directory, path)).mode & 0o777).toString(8)]),
  );
}

/** Starts a gateway of one worker, and waits until it is ready. */
async function startGateway(t: Test, directory: string): Promise<Service> {
  const more = ['--workers', '1', '--next-hop', '127.0.0.1:1'];
  const service = Service.start(t, 'gateway', '--queue', directory, ...more);
  await service.waitForEvent(({ event, service: of }) => event === 'ready' && of === 'gateway');
  return service;
}

t.test('only the user of a queue can use its directories, files, locks and FIFOs', async (t) => {
  const umask = process.umask(0);
  t.teardown(() => process.umask(umask));
  const directory = join(temporaryDirectory(t), 'queue');
  await runQueueCommand('install', '--queue', directory, ...SMALL);
  const service = await startGateway(t, directory);
  const modes = modesBelow(directory);
  for (const name of ['.', '0', 'dead']) t.equal(modes.get(name), '700', name);
  for (const name of [
    'queue.json',
    '0/queue.data',
    '0/queue.index',
    '0/queue.lock',
    '0/request.fifo',
    'dead/queue.data',
  ])
    t.equal(modes.get(name), '600', name);
  t.strictSame(
    [...modes.values()].filter((mode) => mode !== '700' && mode !== '600'),
    [],
  );
  t.equal(await service.stop(), 0);
  t.equal(service.stderr, '', 'there is no warning');
});

t.test('a service warns of a directory that other users can enter, and changes nothing', async (t) => {
  const directory = join(temporaryDirectory(t), 'queue');
  await runQueueCommand('install', '--queue', directory, ...SMALL);
  chmodSync(directory, 0o755);
  const service = await startGateway(t, directory);
  t.equal(await service.stop(), 0);
  t.equal(
    service.stderr,
    `plugpull queue: warning: ${directory} has mode 0755, so that other users may read mail; ` +
      `expected 0700 (chmod 0700 ${directory})\n`,
    'the supervisor warns once for all its services',
  );
  t.equal(modesBelow(directory).get('.'), '755');
});

t.test('only the outermost directories of a queue count, wherever they are', async (t) => {
  const root = temporaryDirectory(t);
  for (const [name, mode] of [
    ['queue', 0o700],
    ['queue/a', 0o777],
    ['disk', 0o750],
    ['index', 0o701],
  ] as const) {
    mkdirSync(join(root, name));
    chmodSync(join(root, name), mode);
  }
  const settings = parseSettings({
    directory: join(root, 'queue'),
    pairs: [
      { directory: 'a' },
      { directory: join(root, 'disk'), indexDirectory: join(root, 'index') },
      { directory: join(root, 'missing') },
    ],
  });
  t.strictSame(openDirectories(settings), [
    { path: join(root, 'disk'), mode: 0o750 },
    { path: join(root, 'index'), mode: 0o701 },
  ]);
});

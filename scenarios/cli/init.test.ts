import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { loadTarget } from '../../conformance/target-file/load.js';
import { protocolNames, starterTarget } from '../../conformance/target-file/starter.js';
import { TestWorkspace } from '../fixtures/kit.js';

function newPlace(t: { teardown(remove: () => void): void }): TestWorkspace {
  const place = new TestWorkspace();
  t.teardown(() => place.remove());
  return place;
}

t.test('init writes a target that loads, for every protocol, and never over a file', async (t) => {
  const place = newPlace(t);
  for (const protocol of protocolNames()) {
    const file = join(place.dir, `${protocol}.json`);
    writeFileSync(file, JSON.stringify(starterTarget('q', protocol)));
    t.equal(loadTarget(file).protocol, protocol);
  }
  const { code, stdout } = await place.run([
    'init',
    '--name',
    'mine',
    '--protocol',
    'smtp',
    '--out',
    'sub/q.json',
  ]);
  t.equal(code, 0);
  t.equal(stdout, 'sub/q.json\n');
  const written = loadTarget(join(place.dir, 'sub/q.json'));
  t.match(written, { name: 'mine', protocol: 'smtp' });
  t.ok(written.services.server?.command.includes('{sink}'));
  const before = readFileSync(join(place.dir, 'sub/q.json'));
  const again = await place.run(['init', '--out', 'sub/q.json']);
  t.equal(again.code, 2);
  t.match(again.stderr, /--out sub\/q\.json: expected a file that does not exist/);
  t.same(readFileSync(join(place.dir, 'sub/q.json')), before);
  const bad = await place.run(['init', '--protocol', 'ftp']);
  t.equal(bad.code, 2);
  t.match(bad.stderr, /--protocol ftp: expected one of http, smtp/);
});

t.test('check tells each problem on a line of its own, by key, and starts nothing', async (t) => {
  const place = newPlace(t);
  const file = place.target(['{dir}/queue', '{prot}'], {
    protocol: 'ftp',
    guarantee: { faults: ['kil'], duplicatesPerCrash: -1 },
  });
  const { code, stderr, stdout } = await place.run(['check', file, '--json']);
  t.equal(code, 2);
  const { problems } = JSON.parse(stdout) as { problems: string[] };
  t.match(problems, [
    /^protocol: expected one of http/,
    /^guarantee\.faults\.0: expected one of kill/,
    /^guarantee\.dup/,
  ]);
  t.equal(stderr.trim().split('\n').length, problems.length);

  const queue = join(place.dir, 'queue');
  const good = place.target(['{dir}/queue', '{port}']);
  const missing = await place.run(['check', good]);
  t.equal(missing.code, 2);
  t.match(
    missing.stderr,
    /services\.server\.command\.0: expected a program that can be run here, found .*queue/,
  );
  mkdirSync(place.dir, { recursive: true });
  writeFileSync(queue, '#!/bin/sh\n');
  chmodSync(queue, 0o755);
  t.equal((await place.run(['check', good])).code, 0);
});

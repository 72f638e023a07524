import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { loadTarget } from '../../conformance/target-file/load.js';
import { protocolNames, starterTarget } from '../../conformance/target-file/starter.js';
import { TestWorkspace } from '../fixtures/kit.js';

function newWorkspace(t: { teardown(remove: () => void): void }): TestWorkspace {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  return workspace;
}

t.test('init writes a target file that loads, for every protocol, and never overwrites a file', async (t) => {
  const workspace = newWorkspace(t);
  for (const protocol of protocolNames()) {
    const file = join(workspace.dir, `${protocol}.json`);
    writeFileSync(file, JSON.stringify(starterTarget('q', protocol)));
    t.equal(loadTarget(file).protocol, protocol);
  }
  const { code, stdout } = await workspace.run([
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
  const written = loadTarget(join(workspace.dir, 'sub/q.json'));
  t.match(written, { name: 'mine', protocol: 'smtp' });
  t.ok(written.services.server?.command.includes('{sink}'));
  const before = readFileSync(join(workspace.dir, 'sub/q.json'));
  const again = await workspace.run(['init', '--out', 'sub/q.json']);
  t.equal(again.code, 2);
  t.match(again.stderr, /--out sub\/q\.json: expected a file that does not exist/);
  t.same(readFileSync(join(workspace.dir, 'sub/q.json')), before);
  const bad = await workspace.run(['init', '--protocol', 'ftp']);
  t.equal(bad.code, 2);
  t.match(bad.stderr, /--protocol ftp: expected one of http, smtp/);
});

t.test('a misspelt word on the command line gets the word that was probably meant', async (t) => {
  const workspace = newWorkspace(t);
  const file = workspace.target(['{node}', '-e', '0', '{data}', '{port}']);
  const cases: [string[], RegExp][] = [
    [['gat'], /Did you mean gate\?/],
    [['gate', '--buget', '30s'], /Did you mean --budget\?/],
    [['gate', file, '--faults', 'kil'], /no such fault, expected one of .* \(did you mean kill\?\)/],
    [['gate', file, '--faults', 'kill-one:sever'], /expected one of server \(did you mean server\?\)/],
    [['gate', file, '--runtime', 'dokcer'], /expected process, docker or vm \(did you mean docker\?\)/],
    [['gate', file, '--power', 'flaky'], /expected blocklog or flakey \(did you mean flakey\?\)/],
    [['gate', file, '--reporter', 'junt'], /expected one of .* \(did you mean junit\?\)/],
    [['init', '--protocol', 'htpp'], /expected one of .* \(did you mean http\?\)/],
    [['systems', 'redis-alway'], /no such system, .* \(did you mean redis-always\?\)/],
    [['planted', 'rot-droped'], /no such planted bug, .* \(did you mean rot-dropped\?\)/],
  ];
  for (const [args, expected] of cases) {
    const { code, stderr } = await workspace.run(args);
    t.equal(code, 2, args.join(' '));
    t.match(stderr, expected, args.join(' '));
  }
});

t.test('the default of a time has a unit in every help text', async (t) => {
  const workspace = newWorkspace(t);
  const { stdout } = await workspace.run(['--help']);
  const commands = [...stdout.matchAll(/^ {2}([a-z]+) /gm)].map(([, name = '']) => name);
  t.ok(commands.includes('gate') && commands.includes('replay'));
  let times = 0;
  // The help of `queue` is that of another program.
  for (const name of commands.filter((command) => command !== 'queue' && command !== 'help')) {
    const help = (await workspace.run([name, '--help'])).stdout.replace(/\s+/g, ' ');
    for (const [, value = ''] of help.matchAll(/--budget <time>.*?\(default: ([^)]+)\)/g)) {
      times++;
      t.match(value, /^\d+(?:ms|s|m|h)$/, name);
    }
  }
  t.ok(times >= 5, `${times} defaults`);
});

t.test('check reports each problem on one line with its key, also a missing program', async (t) => {
  const workspace = newWorkspace(t);
  const file = workspace.target(['{dir}/queue', '{prot}'], {
    protocol: 'ftp',
    guarantee: { faults: ['kil'], duplicatesPerCrash: -1 },
  });
  const { code, stderr, stdout } = await workspace.run(['check', file, '--json']);
  t.equal(code, 2);
  const { problems } = JSON.parse(stdout) as { problems: string[] };
  t.match(problems, [
    /^protocol: expected one of http/,
    /^guarantee\.faults\.0: expected one of kill/,
    /^guarantee\.dup/,
  ]);
  t.equal(stderr.trim().split('\n').length, problems.length);

  const queue = join(workspace.dir, 'queue');
  const good = workspace.target(['{dir}/queue', '{port}', '{data}']);
  const missing = await workspace.run(['check', good]);
  t.equal(missing.code, 2);
  t.match(
    missing.stderr,
    /services\.server\.command\.0: expected a program that can be run here, found .*queue/,
  );
  mkdirSync(workspace.dir, { recursive: true });
  writeFileSync(queue, '#!/bin/sh\n');
  chmodSync(queue, 0o755);
  t.equal((await workspace.run(['check', good])).code, 0);
});

t.test('check demands that some command uses {data}', async (t) => {
  const workspace = newWorkspace(t);
  const check = async (...target: Parameters<TestWorkspace['target']>) =>
    workspace.run(['check', workspace.target(...target)]);
  const without = await check(['{node}', '--data', '/var/lib/queue', '{port}']);
  t.match(without, {
    code: 2,
    stderr: /^\S+: services: expected \{data\} in the command or env of a service, or in install: .*\n$/,
  });
  t.equal((await check(['{node}', '--data={data}/queue', '{port}'])).code, 0);
  t.equal((await check(['{node}', '{port}'], { install: ['{node}', '{data}'] })).code, 0);
});
t.test(
  'check reports each file of a command that does not exist, and each program that is missing',
  async (t) => {
    const workspace = newWorkspace(t);
    writeFileSync(join(workspace.dir, 'not-executable'), '');
    const file = workspace.target(
      ['sh', '{dir}/nosuch.sh', '--config={dir}/nosuch.conf', '{data}', '{port}'],
      {
        install: ['sh', '-c', 'cc -o {dir}/made {dir}/made.c'],
        verify: ['{dir}/made', '{data}'],
        nudge: ['nosuchprogram'],
        crashStates: { restore: ['{dir}/not-executable'] },
      },
    );
    const { code, stdout } = await workspace.run(['check', file, '--json']);
    t.equal(code, 2);
    const { problems } = JSON.parse(stdout) as { problems: string[] };
    t.equal(problems.length, 4, 'install makes the program of verify, so it may be missing');
    t.match(problems, [
      /^nudge\.0: expected a program that can be run here, found nosuchprogram, which is not in PATH$/,
      /^services\.server\.command\.1: expected a file that exists, found .*nosuch\.sh, which does not exist$/,
      /^services\.server\.command\.2: expected a file that exists, found .*nosuch\.conf, which does not exist$/,
      /^crashStates\.restore\.0: expected a program .*, found .*not-executable, which is not executable/,
    ]);
  },
);

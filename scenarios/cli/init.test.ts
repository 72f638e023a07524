import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { loadTarget } from '../../conformance/target-file/load.js';
import { protocolNames, starterTarget } from '../../conformance/target-file/starter.js';
import { TestWorkspace } from '../fixtures/kit.js';
import { packageRoot } from '../host/version.js';

const noScript =
  spawnSync('script', ['--version']).status === 0 ? false : 'the program script is not installed';

function newWorkspace(t: { teardown(remove: () => void): void }): TestWorkspace {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  return workspace;
}

t.test('init writes a target file that loads, for every protocol and form', async (t) => {
  const workspace = newWorkspace(t);
  for (const protocol of protocolNames()) {
    for (const services of ['one', 'several'] as const) {
      const file = join(workspace.dir, `${protocol}.json`);
      writeFileSync(file, JSON.stringify(starterTarget('q', protocol, services)));
      t.equal(loadTarget(file).protocol, protocol);
    }
  }
  const flags = ['--name', 'mine', '--protocol', 'smtp', '--out', 'sub'];
  const { code, stdout, stderr } = await workspace.run(['init', ...flags]);
  t.equal(code, 0);
  t.match(stderr, /these defaults are used: --services one --ci github\n/);
  t.equal(stdout, 'sub/mine.json\nsub/.github/workflows/plugpull.yml\n');
  const written = loadTarget(join(workspace.dir, 'sub/mine.json'));
  t.match(written, { name: 'mine', protocol: 'smtp' });
  t.ok(written.services.server?.command.includes('{sink}'));
  const wanted = await workspace.run(['init', ...flags, '--language', 'go', '--ci', 'none']);
  t.equal(wanted.code, 0);
  t.match(wanted.stderr, /--language go: there is no skeleton for the protocol smtp, only for http/);
  t.match(wanted.stderr, /all files exist already/);
});

t.test('init writes all files or none, and replaces a file only with --force', async (t) => {
  const workspace = newWorkspace(t);
  const folder = join(workspace.dir, 'own');
  mkdirSync(folder);
  writeFileSync(join(folder, 'front.c'), 'mine');
  const flags = ['--language', 'c', '--services', 'several', '--out', 'own', '--ci', 'gitlab'];
  const refused = await workspace.run(['init', ...flags]);
  t.equal(refused.code, 2);
  t.match(
    refused.stderr,
    /--out own: own\/front\.c: expected no file of this name.*nothing was written.*--force/,
  );
  t.same(readdirSync(folder), ['front.c']);
  const forced = await workspace.run(['init', ...flags, '--force']);
  t.equal(forced.code, 0, forced.stderr);
  t.same(readdirSync(folder).sort(), ['.gitlab-ci.yml', 'front.c', 'my-queue.json', 'queue.c']);
  t.not(readFileSync(join(folder, 'front.c'), 'utf8'), 'mine');
  const folderName = await workspace.run(['init', '--out', 'q.json']);
  t.match(folderName, { code: 2, stderr: /--out q\.json: expected a folder/ });
});

t.test('init puts the CI file where CI systems look for it: in the root of the git repository', async (t) => {
  const workspace = newWorkspace(t);
  mkdirSync(join(workspace.dir, '.git'));
  const { stdout } = await workspace.run(['init', '--language', 'python', '--out', 'queues/mine']);
  t.match(stdout, /^\.github\/workflows\/plugpull\.yml$/m);
  const text = readFileSync(join(workspace.dir, '.github/workflows/plugpull.yml'), 'utf8');
  t.match(text, /working-directory: "queues\/mine"/);
});

t.test(
  'init asks on a terminal, also when answers are wrong or typed ahead',
  { skip: noScript },
  async (t) => {
    const workspace = newWorkspace(t);
    const answers = 'mine\n\ncobol\nrust\nseveral\njenkins\n';
    const main = join(packageRoot(), 'dist/scenarios/cli/main.js');
    const { status, stdout } = spawnSync(
      'script',
      ['-qec', `${process.execPath} ${main} init`, '/dev/null'],
      {
        cwd: workspace.dir,
        input: answers,
        encoding: 'utf8',
        timeout: 120_000,
      },
    );
    t.equal(status, 0, stdout);
    t.match(stdout, /expected one of python, javascript, go, rust, c, none/);
    t.ok(existsSync(join(workspace.dir, 'Jenkinsfile')));
    t.same(Object.keys(loadTarget(join(workspace.dir, 'mine.json')).services), ['store', 'front']);
  },
);

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
    [['init', '--language', 'pyton'], /expected one of .* \(did you mean python\?\)/],
    [['systems', 'redis-alway'], /no such system, .* \(did you mean redis-always\?\)/],
    [
      ['planted', '--implementation', 'synchronus'],
      /no such implementation, .* \(did you mean synchronous\?\)/,
    ],
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

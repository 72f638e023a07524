import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  statSync,
  symlinkSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { execa } from 'execa';
import t, { type Test } from 'tap';
import { removeTree } from '../../faults/files/remove-tree.js';
import { IMPLEMENTATIONS, isBuilt } from '../host/implementations.js';
import { packageRoot } from '../host/version.js';

/** Files of every reference implementation that the package contains besides the compiled ones. */
const OF_IMPLEMENTATIONS = /\.(?:md|svg|schema\.json)$/;
const MAX_TARBALL_BYTES = 1_250_000;

/** One of the files that the kit or its users need, of each kind. */
const NEEDED = [
  'dist/scenarios/cli/main.js',
  'dist/scenarios/clean/watchdog-program.js',
  'dist/reference-impl/synchronous/main.js',
  'dist/docker/main.js',
  'conformance/target-file/target.schema.json',
  'conformance/targets/reference.json',
  'conformance/targets/systems/expected.json',
  'conformance/targets/systems/postgres.sh',
  'conformance/examples/python/queue.py',
  'conformance/protocols/http/README.md',
  'conformance/SPEC.md',
  'reference-impl/common/README.md',
  'reference-impl/synchronous/settings/queue.schema.json',
  'docker/Dockerfile',
  'docker/lab/agent.mjs',
  'docker/setup.mjs',
  'docker/start-engine.mjs',
  'scenarios/README.md',
  'README.md',
  'LICENSE',
];
/** Files that only a checkout needs. */
const UNWANTED =
  /\.test\.|\.map$|\/fixtures\/|\/bench\/|\/planted\/.*\.json$|\.tsbuildinfo$|\.ts$|\/\.[^/]+$|\/examples\/\w+\/queue$/;

interface Packed {
  filename: string;
  size: number;
  files: { path: string }[];
}

/** Packs the kit into a folder. The build is that of the checkout, which the tests run. */
function pack(folder: string): Packed {
  const args = ['pack', '--ignore-scripts', '--json', '--pack-destination', folder];
  const [packed] = JSON.parse(
    execFileSync('npm', args, { cwd: packageRoot(), encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }),
  ) as Packed[];
  if (packed === undefined) throw new Error('npm pack has packed nothing');
  return packed;
}

function newFolder(test: Test): string {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), 'plugpull-package-')));
  test.teardown(() => removeTree(folder));
  return folder;
}

/**
 * Makes a project in which the package is installed, without a network: the packages that it needs are links to those of
 * the checkout, and what only the checkout needs is not there.
 */
function installedProject(test: Test): { project: string; root: string } {
  const base = newFolder(test);
  const { filename } = pack(base);
  const project = join(base, 'project');
  const modules = join(project, 'node_modules');
  const root = join(modules, 'plugpull');
  mkdirSync(root, { recursive: true });
  execFileSync('tar', ['-xzf', join(base, filename), '-C', root, '--strip-components=1']);
  const { dependencies, optionalDependencies } = JSON.parse(
    readFileSync(join(packageRoot(), 'package.json'), 'utf8'),
  ) as { dependencies: object; optionalDependencies: object };
  for (const name of Object.keys({ ...dependencies, ...optionalDependencies })) {
    mkdirSync(dirname(join(modules, name)), { recursive: true });
    symlinkSync(join(packageRoot(), 'node_modules', name), join(modules, name));
  }
  return { project, root };
}

/** Returns programs, target files, manuals and schemas of the reference implementations that are here. */
function filesOfImplementations(): string[] {
  const built = IMPLEMENTATIONS.filter((one) => isBuilt(one));
  const texts = readdirSync(join(packageRoot(), 'reference-impl'), { recursive: true, encoding: 'utf8' })
    .filter((name) => OF_IMPLEMENTATIONS.test(name))
    .map((name) => `reference-impl/${name}`);
  return [...built.flatMap(({ program, targetFile }) => [program, targetFile]), ...texts];
}

/** Lists the files below a folder with their times and sizes. */
function listing(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .map((name) => {
      const { mtimeMs, size } = statSync(join(folder, name));
      return `${name} ${mtimeMs} ${size}`;
    })
    .sort();
}

t.test('the package has what users need and nothing that only a checkout needs', async (t) => {
  const { files, size } = pack(newFolder(t));
  const paths = files.map(({ path }) => path);
  const needed = [...NEEDED, ...filesOfImplementations()];
  t.same(
    needed.filter((path) => !paths.includes(path)),
    [],
    'nothing is missing',
  );
  t.same(
    paths.filter((path) => UNWANTED.test(path)),
    [],
    'nothing is too much',
  );
  t.ok(size < MAX_TARBALL_BYTES, `${size} bytes`);
});

t.test('the installed package runs in the project of its user and writes nothing elsewhere', async (t) => {
  const { project, root } = installedProject(t);
  const before = listing(root);
  const program = join(root, 'dist/scenarios/cli/main.js');
  const { PLUGPULL_STATE: _, ...env } = process.env;
  const kit = (...args: string[]) =>
    execa(process.execPath, [program, ...args], { cwd: project, env, extendEnv: false, reject: false });

  const made = await kit('init', '--name', 'mine', '--protocol', 'http');
  t.match(made.stderr, /npx plugpull check mine\.json/);
  const target = JSON.parse(readFileSync(join(project, 'mine.json'), 'utf8')) as { $schema: string };
  t.match(readFileSync(join(project, target.$schema), 'utf8'), /"title": "PlugPull target definition"/);
  t.match((await kit('check', 'mine.json')).stderr, /^mine\.json: /);
  t.match((await kit('gate', '--help')).stdout, /^Usage: npx plugpull gate /);

  const gate = await kit('gate', '--faults', 'kill', '--injections', '4', '--budget', '120s', '--json');
  t.equal(gate.exitCode, 0, gate.stderr);
  t.match(JSON.parse(gate.stdout), {
    target: 'reference',
    verdict: 'pass',
    replay: /^npx plugpull gate --seed /,
  });
  t.match(await kit('doctor'), { exitCode: 0 });
  t.match(await kit('lab', 'status'), { exitCode: 3, stdout: /npx plugpull lab up/ });
  t.match(await kit('clean'), { exitCode: 0, stdout: 'nothing was left' });

  const planted = await kit('planted');
  t.match(planted, { exitCode: 2, stderr: /^plugpull: planted: .*expected a checkout of PlugPull$/ });

  t.match(await kit('queue'), {
    exitCode: 0,
    stdout: /^Usage: npx plugpull queue IMPLEMENTATION COMMAND …\n/,
  });
  const help = await kit('queue', 'synchronous', '--help');
  t.match(help, { exitCode: 0, stdout: /^Usage: npx plugpull queue synchronous / });

  t.same(listing(root), before, 'the package is as it was installed');
  t.ok(existsSync(join(project, '.plugpull/runs')), 'runs write into the project');
});

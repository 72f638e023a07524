import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { TARGET_SCHEMA_URL } from '../../conformance/target-file/versions.js';
import { removeTree } from '../../faults/files/remove-tree.js';
import { commandLineAt, pathFromHere, schemaLocation } from './command-line.js';
import { packageRoot } from './version.js';

const PROGRAM = 'dist/scenarios/cli/main.js';

/** Makes a folder with a package of the kit in it, as far as it decides how the kit is started. */
function makePackage(test: Test, path: string, isCheckout = false): { base: string; root: string } {
  const base = realpathSync(mkdtempSync(join(tmpdir(), 'plugpull-place-')));
  test.teardown(() => removeTree(base));
  const root = join(base, path);
  mkdirSync(join(root, 'dist/scenarios/cli'), { recursive: true });
  writeFileSync(join(root, PROGRAM), '');
  if (isCheckout) writeFileSync(join(root, 'tsconfig.json'), '{}');
  return { base, root };
}

t.test('a checkout is started by npm in its own folder, and by Node elsewhere', async (t) => {
  const { base, root } = makePackage(t, 'kit', true);
  const at = (cwd: string, ...args: string[]) => commandLineAt({ root, cwd, env: { PATH: '' } }, args);
  t.equal(at(root, 'clean', '--all'), 'npm run plugpull -- clean --all');
  t.equal(at(root), 'npm run plugpull --');
  t.equal(at(root, 'gate', 'my queue.json'), "npm run gate -- 'my queue.json'");
  t.equal(at(root, 'gate'), 'npm run gate');
  t.equal(at(root, 'setup'), 'npm run setup');
  t.equal(at(join(root, 'dist'), 'clean'), 'node scenarios/cli/main.js clean');
  t.equal(at(base, 'gate', 'x.json'), 'node kit/dist/scenarios/cli/main.js gate x.json');
});

t.test('an installed package is started by npx in its project and below', async (t) => {
  const { base, root } = makePackage(t, 'project/node_modules/plugpull');
  const at = (cwd: string, env = {}) =>
    commandLineAt({ root, cwd, env: { PATH: '', ...env } }, ['gate', 'x.json']);
  mkdirSync(join(base, 'project/deep/er'), { recursive: true });
  t.equal(at(join(base, 'project')), 'npx plugpull gate x.json');
  t.equal(at(join(base, 'project/deep/er')), 'npx plugpull gate x.json');
  t.equal(at(base), `node project/node_modules/plugpull/${PROGRAM} gate x.json`, 'not beside the project');
  t.equal(at(base, { npm_command: 'exec' }), 'npx plugpull gate x.json', 'npx has fetched it');
  // Another version in a project nearer to the user: npx would start that one.
  mkdirSync(join(base, 'project/deep/node_modules/plugpull'), { recursive: true });
  t.match(at(join(base, 'project/deep')), /^node \S+ gate x\.json$/);
});

t.test('a package of pnpm, which is a symbolic link, is started by npx, too', async (t) => {
  const { base, root } = makePackage(t, 'store/plugpull');
  mkdirSync(join(base, 'project/node_modules'), { recursive: true });
  symlinkSync(root, join(base, 'project/node_modules/plugpull'));
  const place = { root, cwd: join(base, 'project'), env: { PATH: '' } };
  t.equal(commandLineAt(place, ['doctor']), 'npx plugpull doctor');
  t.equal(
    schemaLocation(join(base, 'project'), root),
    'node_modules/plugpull/conformance/target-file/target.schema.json',
  );
});

t.test('a program on the PATH is started by its name, and only if it is this one', async (t) => {
  const { base, root } = makePackage(t, 'lib/node_modules/plugpull');
  mkdirSync(join(base, 'bin'));
  symlinkSync(join(root, PROGRAM), join(base, 'bin/plugpull'));
  const at = (PATH: string) =>
    commandLineAt({ root, cwd: '/usr/local/share/deep', env: { PATH } }, ['clean']);
  t.equal(at(`/usr/bin:${base}/bin`), 'plugpull clean');
  t.equal(at('/usr/bin'), `node ${join(root, PROGRAM)} clean`);
  mkdirSync(join(base, 'other'));
  writeFileSync(join(base, 'other/plugpull'), '');
  t.equal(at(`${base}/other:${base}/bin`), `node ${join(root, PROGRAM)} clean`, 'another one comes first');
});

t.test('paths are as short as they can be and never look like an option', async (t) => {
  t.equal(pathFromHere('/work/a/b.json', '/work'), 'a/b.json');
  t.equal(pathFromHere('/work', '/work'), '.');
  t.equal(pathFromHere('/evidence/b.tar.gz', '/work/very/deep/folder'), '/evidence/b.tar.gz');
  t.equal(pathFromHere('/work/b.json', '/work/a'), '../b.json');
  t.equal(pathFromHere('-x.json', '/work'), './-x.json');
});

t.test(
  'a target file names the schema by a path where the package is, and by its address elsewhere',
  async (t) => {
    const { base, root } = makePackage(t, 'project/node_modules/plugpull');
    const inProject = (folder: string) => schemaLocation(join(base, folder), root);
    t.equal(inProject('project'), 'node_modules/plugpull/conformance/target-file/target.schema.json');
    t.equal(inProject('project/a'), '../node_modules/plugpull/conformance/target-file/target.schema.json');
    t.equal(inProject('elsewhere'), TARGET_SCHEMA_URL);
    const checkout = makePackage(t, 'kit', true);
    t.equal(
      schemaLocation(join(checkout.root, 'targets'), checkout.root),
      '../conformance/target-file/target.schema.json',
    );
    t.equal(schemaLocation(checkout.base, checkout.root), TARGET_SCHEMA_URL);
  },
);

/** Commands of the kit. A text that has one of them after the name of the kit tells somebody to type it. */
const TYPED =
  /\bplugpull (?:gate|certify|verify|replay|sweep|init|check|explore|setup|doctor|clean|lab|planted|systems|queue|report)\b(?!:)|npm run [a-z]/;

/** Files with texts that are not printed: manuals that are made from code, and the function itself. */
const NOT_PRINTED: ReadonlySet<string> = new Set([
  'conformance/requirements/spec-text.ts',
  'scenarios/planted/results-table.ts',
  'scenarios/host/command-line.ts',
  // The files that it makes run where the package is installed, whatever the place of the user is.
  'scenarios/cli/init/ci-file.ts',
]);

/** Removes comments: they may explain a command. */
function withoutComments(source: string): string {
  return source.replace(/\/\*[\s\S]*?\*\//g, '').replace(/(^|\s)\/\/.*$/gm, '');
}

t.test('no text that the kit prints has a command that was not made for the place of the user', async (t) => {
  const found: string[] = [];
  let files = 0;
  for (const folder of ['conformance', 'faults', 'scenarios', 'docker', 'reference-impl'])
    for (const name of readdirSync(join(packageRoot(), folder), { recursive: true, encoding: 'utf8' })) {
      const path = `${folder}/${name}`;
      if (!/\.(?:ts|sh)$/.test(name) || /\.test\.ts$|fixtures\//.test(name) || NOT_PRINTED.has(path))
        continue;
      files++;
      for (const line of withoutComments(readFileSync(join(packageRoot(), path), 'utf8')).split('\n'))
        if (TYPED.test(line) && !/^\s*#/.test(line)) found.push(`${path}: ${line.trim()}`);
    }
  t.ok(files > 300, `${files} files were looked at`);
  t.same(found, []);
});

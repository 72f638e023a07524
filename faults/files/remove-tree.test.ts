import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import t from 'tap';
import { mounts, mountsBelow, parseMountinfo } from './mountinfo.js';
import { RemovalError, removeTree } from './remove-tree.js';

interface Teardown {
  teardown(end: () => unknown): void;
}

/** Makes a directory with a folder `tree`, which is to be removed, and a folder `precious`, which must survive. */
function newPlace(t: Teardown) {
  const dir = mkdtempSync(join(tmpdir(), 'plugpull-remove-test-'));
  const [tree, precious] = [join(dir, 'tree'), join(dir, 'precious')];
  for (const path of [tree, precious]) mkdirSync(path);
  writeFileSync(join(precious, 'file'), 'x');
  t.teardown(() => {
    spawnSync('chattr', ['-R', '-i', '-a', dir]);
    for (const { point } of mountsBelow(dir).reverse()) spawnSync('umount', ['-l', point]);
    rmSync(dir, { recursive: true, force: true });
  });
  return { dir, tree, precious };
}

const isRoot = process.getuid?.() === 0;

/** Mounts something; returns false, with a comment, where that is not allowed. */
function mount(t: { comment(text: string): void }, ...args: string[]): boolean {
  const { status, stderr } = spawnSync('mount', args, { encoding: 'utf8' });
  if (status !== 0) t.comment(`mounting is not allowed here: ${stderr}`);
  return status === 0;
}

t.test('a tree is removed with what is in it, and links are not followed', async (t) => {
  const { dir, tree, precious } = newPlace(t);
  mkdirSync(join(tree, 'a/b'), { recursive: true });
  writeFileSync(join(tree, 'a/b/file'), '');
  symlinkSync(precious, join(tree, 'a/link'));
  spawnSync('mkfifo', [join(tree, 'pipe')]);
  writeFileSync(Buffer.concat([Buffer.from(`${tree}/`), Buffer.from([0xff, 0x0a])]), '');
  t.equal(removeTree(tree), true);
  t.same(readdirSync(dir), ['precious']);
  t.same(readdirSync(precious), ['file']);
  t.equal(removeTree(tree), false, 'a second removal finds nothing');
  t.equal(removeTree(join(tree, 'below')), false);
});

t.test('a link in the place of the tree is removed, and not what it leads to', async (t) => {
  const { tree, precious } = newPlace(t);
  rmSync(tree, { recursive: true });
  symlinkSync(precious, tree);
  t.equal(removeTree(tree), true);
  t.notOk(existsSync(tree));
  t.same(readdirSync(precious), ['file']);
});

t.test('a link above the tree that was made since this process started is not followed', async (t) => {
  const { dir, tree, precious } = newPlace(t);
  rmSync(tree, { recursive: true });
  symlinkSync(precious, tree);
  t.throws(() => removeTree(join(tree, 'file')), {
    name: 'RemovalError',
    message: /tree is a link to .*precious since the run began/,
  });
  t.same(readdirSync(precious), ['file']);
  t.same(readdirSync(dir).sort(), ['precious', 'tree']);
});

t.test('directories of any depth are removed, also with few open files', async (t) => {
  const { tree } = newPlace(t);
  const nest = `import os, sys
os.chdir(sys.argv[1])
for _ in range(300):
    os.mkdir('d'); os.chdir('d')`;
  if (spawnSync('python3', ['-c', nest, tree]).status !== 0) {
    t.comment('python3 is missing');
    return;
  }
  const module = fileURLToPath(new URL('./remove-tree.js', import.meta.url));
  const script = `import { removeTree } from '${module}'; removeTree('${tree}');`;
  const few = ['-c', 'ulimit -n 64; exec "$@"', 'sh', process.execPath, '--input-type=module', '-e', script];
  const { status, stderr } = spawnSync('sh', few, { encoding: 'utf8' });
  t.equal(status, 0, stderr);
  t.notOk(existsSync(tree));
});

t.test('directories without rights are removed, by root and by others', async (t) => {
  const { dir, tree } = newPlace(t);
  mkdirSync(join(tree, 'a/b'), { recursive: true });
  writeFileSync(join(tree, 'a/b/file'), '');
  for (const path of ['a/b/file', 'a/b', 'a', '.']) chmodSync(join(tree, path), 0);
  if (!isRoot) {
    removeTree(tree);
    t.notOk(existsSync(tree));
    return;
  }
  // The user may not enter the folder of this tree, so give it the module as one file.
  const module = fileURLToPath(new URL('./remove-tree.js', import.meta.url));
  const bundle = join(dir, 'remove.mjs');
  await build({
    ...{ entryPoints: [module], outfile: bundle, bundle: true, platform: 'node', format: 'esm' },
  });
  chmodSync(bundle, 0o644);
  const nobody = 65534;
  spawnSync('chown', ['-R', `${nobody}:${nobody}`, tree]);
  spawnSync('chown', [`${nobody}:${nobody}`, dir]);
  const script = `import { removeTree } from '${bundle}'; removeTree('${tree}');`;
  const ended = spawnSync(
    'setpriv',
    [
      ...[`--reuid=${nobody}`, `--regid=${nobody}`, '--clear-groups'],
      ...[process.execPath, '--input-type=module', '-e', script],
    ],
    { encoding: 'utf8', cwd: '/', env: { PATH: process.env.PATH } },
  );
  t.equal(ended.status, 0, ended.stderr);
  t.notOk(existsSync(tree));
});

t.test('what is mounted below is unmounted, and its files stay', { skip: !isRoot }, async (t) => {
  const { tree, precious } = newPlace(t);
  for (const name of ['bind', 'of a file', 'tmpfs']) mkdirSync(join(tree, name));
  writeFileSync(join(tree, 'of a file/f'), '');
  if (!mount(t, '--bind', precious, join(tree, 'bind'))) return;
  mount(t, '--bind', join(precious, 'file'), join(tree, 'of a file/f'));
  mount(t, '-t', 'tmpfs', 'plugpull-test', join(tree, 'tmpfs'));
  mkdirSync(join(tree, 'tmpfs/x'));
  mount(t, '--bind', precious, join(tree, 'tmpfs/x'));
  t.equal(mountsBelow(tree).length, 4);
  removeTree(tree);
  t.notOk(existsSync(tree));
  t.equal(mountsBelow(tree).length, 0);
  t.equal(readFileSync(join(precious, 'file'), 'utf8'), 'x');
});

t.test('a mount over the tree itself is unmounted, and its files stay', { skip: !isRoot }, async (t) => {
  const { tree, precious } = newPlace(t);
  if (!mount(t, '--bind', precious, tree)) return;
  removeTree(tree);
  t.notOk(existsSync(tree));
  t.same(readdirSync(precious), ['file']);
});

t.test('a busy mount of another place is taken out of the way', { skip: !isRoot }, async (t) => {
  const { tree, precious } = newPlace(t);
  if (!mount(t, '--bind', precious, tree)) return;
  const before = process.cwd();
  process.chdir(tree);
  t.teardown(() => process.chdir(before));
  removeTree(tree);
  t.notOk(existsSync(tree));
  t.same(readdirSync(precious), ['file']);
});

t.test(
  'a mount that was there before the process stays, with one clear line',
  { skip: !isRoot },
  async (t) => {
    const { dir, tree, precious } = newPlace(t);
    mkdirSync(join(tree, 'mine'));
    if (!mount(t, '--bind', precious, join(tree, 'mine'))) return;
    const module = fileURLToPath(new URL('./remove-tree.js', import.meta.url));
    const run = (path: string, options: string) => {
      const script = `import { removeTree } from '${module}';
      try { removeTree('${path}', ${options}); } catch (error) { console.log(error.message); }`;
      return spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' }).stdout;
    };
    t.match(
      run(tree, '{}'),
      /^.*tree is not removed: .* mounted at .*mine since before the run; unmount it first\n$/,
    );
    t.same(readdirSync(precious), ['file']);
    t.equal(run(tree, "{ unmount: 'all' }"), '', 'what a dead run has left is unmounted');
    t.same(readdirSync(dir), ['precious']);
    const own = join(dir, 'own');
    mkdirSync(own);
    mount(t, '-t', 'tmpfs', 'plugpull-test', own);
    writeFileSync(join(own, 'file'), '');
    t.equal(run(own, '{}'), '', 'a directory of the user that is a mount point is emptied, and stays');
    t.same(readdirSync(own), []);
    t.ok(mounts().some(({ point }) => point === own));
  },
);

t.test(
  'immutable files are removed by root, and their other names stay as they are',
  { skip: !isRoot },
  async (t) => {
    const { tree, precious } = newPlace(t);
    mkdirSync(join(tree, 'd'));
    writeFileSync(join(tree, 'd/f'), '');
    linkSync(join(precious, 'file'), join(tree, 'linked'));
    const flags = spawnSync('chattr', ['+i', join(tree, 'd/f'), join(tree, 'd'), join(precious, 'file')]);
    if (flags.status !== 0) {
      t.comment('this filesystem has no such flag');
      return;
    }
    t.throws(() => unlinkSync(join(tree, 'd/f')), { code: 'EPERM' });
    removeTree(tree);
    t.notOk(existsSync(tree));
    t.match(spawnSync('lsattr', [join(precious, 'file')], { encoding: 'utf8' }).stdout, /^-*i/);
  },
);

t.test('an error is one line with the path and the reason', async (t) => {
  const error = new RemovalError('x');
  t.equal(error.name, 'RemovalError');
  // No process can remove an entry of this filesystem.
  t.throws(() => removeTree('/proc/self/fdinfo'), {
    name: 'RemovalError',
    message: /^\/proc\/\S+ is not removed: \S.*$/,
  });
});

t.test('a table of mounts is parsed, also names with blanks and optional fields', async (t) => {
  const text = [
    '36 35 98:0 /mnt1 /a\\040b rw,noatime master:1 - ext3 /dev/root rw,errors=continue',
    '37 35 0:40 / /a rw shared:2 master:1 - tmpfs plugpull rw',
    '',
  ].join('\n');
  const parsed = parseMountinfo(text);
  t.same(parsed, [
    { id: 36, device: '98:0', root: '/mnt1', point: '/a b', type: 'ext3', source: '/dev/root' },
    { id: 37, device: '0:40', root: '/', point: '/a', type: 'tmpfs', source: 'plugpull' },
  ]);
  t.same(
    mountsBelow('/a', parsed).map(({ point }) => point),
    ['/a'],
  );
  t.equal(mountsBelow('/', parsed).length, 2);
});

t.test('every part of the kit removes trees by this function', async (t) => {
  const root = fileURLToPath(new URL('../..', import.meta.url));
  const files = ['faults', 'scenarios'].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' }).map((name) => join(folder, name)),
  );
  const programs = files.filter((name) => /\.js$/.test(name) && !/\.test\.js$|\/fixtures\//.test(name));
  t.ok(programs.length > 200, 'the compiled parts are found');
  const others = programs.filter((name) =>
    /\brm(Sync)?\([^;]*recursive: true/.test(readFileSync(join(root, name), 'utf8')),
  );
  t.same(others, ['faults/files/remove-tree.js']);
});

import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, cpSync, mkdirSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import t from 'tap';

const root = fileURLToPath(new URL('../../..', import.meta.url));
const isRoot = process.getuid?.() === 0;
/** Id of the user `nobody`. This user owns no files. */
const NOBODY = 65_534;
const asOther = isRoot ? { uid: NOBODY, gid: NOBODY } : {};
const skip =
  spawnSync(process.execPath, ['-e', ''], { ...asOther, cwd: '/' }).status === 0
    ? false
    : 'another user cannot run this Node';

function write(file: string, content: string): void {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, content);
}

/** Makes a checkout that is set up, and that the user of the set-up cannot write to. */
function checkout(t: { teardown(remove: () => void): void }): string {
  const dir = mkdtempSync(join(tmpdir(), 'plugpull-setup-'));
  t.teardown(() => {
    chmodSync(dir, 0o755);
    rmSync(dir, { recursive: true, force: true });
  });
  cpSync(join(root, 'docker/setup'), join(dir, 'docker/setup'), { recursive: true });
  for (const name of ['setup.mjs', 'start-engine.mjs'])
    cpSync(join(root, 'docker', name), join(dir, 'docker', name));
  for (const name of ['reference-impl', 'conformance', 'faults', 'scenarios'])
    write(join(dir, name, 'one.ts'), '');
  write(join(dir, 'tsconfig.json'), '{}');
  for (const name of ['koffi', '@node-rs/crc32'])
    write(join(dir, 'node_modules', name, 'package.json'), '{"main":"index.js"}');
  for (const name of ['koffi', '@node-rs/crc32']) write(join(dir, 'node_modules', name, 'index.js'), '');
  for (const file of ['package-lock.json', 'node_modules/.package-lock.json'])
    write(join(dir, file), '{"packages":{}}');
  write(join(dir, 'dist/.built'), '');
  const later = new Date(Date.now() + 3_600_000);
  utimesSync(join(dir, 'dist/.built'), later, later);
  chmodSync(dir, 0o555);
  return dir;
}

/** Runs the set-up as a user who does not own the checkout. */
async function setUpIn(dir: string): Promise<{ code: number; stderr: string }> {
  const { CI: _ci, ...env } = process.env;
  const args = [join(dir, 'docker/setup.mjs'), '--quiet', '--engines', 'gate'];
  const child = spawn(process.execPath, args, {
    cwd: dir,
    // The other user cannot write the coverage of this run.
    env: { ...env, PLUGPULL_NO_INSTALL: '1', NODE_V8_COVERAGE: '' },
    stdio: ['ignore', 'ignore', 'pipe'],
    ...asOther,
  });
  const [stderr, [code]] = await Promise.all([text(child.stderr), once(child, 'exit')]);
  return { code: code as number, stderr };
}

t.test('the set-up goes on in a checkout of another user when nothing is to be done', { skip }, async (t) => {
  const { code, stderr } = await setUpIn(checkout(t));
  t.equal(code, 0, stderr);
  t.notMatch(stderr, /cannot be written/);
});

for (const [what, file, expected] of [
  ['a source is newer than the build', 'dist/.built', /and the sources must be compiled: /],
  [
    'npm packages are missing',
    'node_modules/.package-lock.json',
    /and npm packages must be installed \(node_modules is missing or incomplete\): /,
  ],
] as const)
  t.test(`in a checkout of another user one line says what to do when ${what}`, { skip }, async (t) => {
    const dir = checkout(t);
    chmodSync(dir, 0o755);
    rmSync(join(dir, file));
    chmodSync(dir, 0o555);
    const { code, stderr } = await setUpIn(dir);
    t.equal(code, 4);
    t.match(stderr, expected);
    t.match(
      stderr,
      /^plugpull setup: \S+\.plugpull cannot be written \(EACCES\), .*: run npm run setup as its owner\n$/,
    );
  });

// Sets up a checkout: dependencies, build and, with --engines or in CI, the engines that tests and faults use.
// It is plain Node, because it runs before anything is installed.
//
//   node docker/setup.mjs [--quiet] [--engines]
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { engineAnswers, startEngine } from './start-engine.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
/** False for an installed npm package, which is complete: it needs engines only, and its folder may be read-only. */
const isCheckout = existsSync(join(root, 'tsconfig.json'));
const stateFolder = resolve(process.env.PLUGPULL_STATE ?? join(isCheckout ? root : '.', '.plugpull'));
const quiet = process.argv.includes('--quiet');
const inCi = Boolean(process.env.CI);
const wantEngines = inCi || process.argv.includes('--engines');

const SOURCE_FOLDERS = ['reference-impl', 'conformance', 'faults', 'scenarios', 'docker'];

/** Programs that faults and runtimes need: a file that shows the installation, and the Debian package. */
const ENGINES = [
  { file: '/usr/bin/strace', package: 'strace' },
  { file: '/usr/bin/faketime', package: 'faketime' },
  { file: '/usr/bin/mmdebstrap', package: 'mmdebstrap' },
  { file: '/usr/bin/qemu-storage-daemon', package: 'qemu-system-common' },
  { file: '/usr/sbin/mkfs.xfs', package: 'xfsprogs' },
  { file: '/usr/bin/qemu-system-x86_64', package: 'qemu-system-x86' },
  { file: '/usr/bin/genext2fs', package: 'genext2fs' },
];
/** Container engine. It is installed only if no engine answers: one from Docker's own packages works as well. */
const CONTAINER_ENGINE = { file: '/usr/sbin/dockerd', package: 'docker.io' };
/** Mail clients and real systems that only tests use. */
const TEST_ENGINES = [
  { file: '/usr/bin/swaks', package: 'swaks' },
  { file: '/usr/sbin/smtp-source', package: 'postfix' },
  { file: '/usr/bin/beanstalkd', package: 'beanstalkd' },
  { file: '/usr/bin/redis-server', package: 'redis-server' },
  { file: '/usr/lib/postgresql', package: 'postgresql' },
  { file: '/usr/lib/rabbitmq/bin/rabbitmq-server', package: 'rabbitmq-server' },
  { file: '/usr/sbin/mosquitto', package: 'mosquitto' },
  { file: '/usr/sbin/nats-server', package: 'nats-server' },
];
const COMPOSE = { file: '/usr/bin/docker-compose', package: 'docker-compose' };

function fail(line) {
  process.stderr.write(`plugpull setup: ${line}\n`);
  process.exit(4);
}

const say = (line) => {
  if (!quiet) process.stderr.write(`plugpull setup: ${line}\n`);
};

function run(command, args, env = {}) {
  const result = spawnSync(command, args, {
    cwd: root,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    encoding: 'utf8',
    maxBuffer: 64 * 2 ** 20,
  });
  return {
    ok: result.status === 0,
    text: `${result.stdout ?? ''}${result.stderr ?? ''}${result.error ?? ''}`,
  };
}

const onPath = (name) =>
  (process.env.PATH ?? '').split(':').some((folder) => folder !== '' && existsSync(join(folder, name)));

function checkNode() {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  if (major < 20 || (major === 20 && minor < 19)) {
    process.stderr.write(`plugpull setup: Node ${process.versions.node} found, 20.19 or later expected\n`);
    process.exit(2);
  }
}

/**
 * Runs `work` under a lock, so that two set-ups do not run at the same time. Takes over a lock whose holder is
 * gone.
 */
function withLock(work) {
  mkdirSync(stateFolder, { recursive: true });
  const lock = join(stateFolder, 'setup.lock');
  const deadline = Date.now() + 600_000;
  for (;;) {
    try {
      writeFileSync(lock, String(process.pid), { flag: 'wx' });
      break;
    } catch {
      if (Date.now() > deadline) fail(`another set-up holds ${lock} for ten minutes: remove it if none runs`);
      if (!isAlive(readLock(lock))) rmSync(lock, { force: true });
      else Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200);
    }
  }
  try {
    work();
  } finally {
    rmSync(lock, { force: true });
  }
}

function readLock(lock) {
  try {
    return Number(readFileSync(lock, 'utf8'));
  } catch {
    return 0;
  }
}

function isAlive(pid) {
  if (!pid) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === 'EPERM';
  }
}

/** Installs the dependencies of the lock file, unless they are installed and built for this version of Node. */
function dependencies() {
  const stamp = join(root, 'node_modules', '.plugpull-setup');
  const wanted = createHash('sha256')
    .update(readFileSync(join(root, 'package-lock.json')))
    .update(process.versions.modules)
    .digest('hex');
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted) return;
  const compiler = ['g++', 'make', 'python3'].every(onPath);
  process.stderr.write('plugpull setup: installing dependencies (npm ci)\n');
  // Build the memory-map addon from source if a compiler exists: otherwise it first looks for a binary on the
  // network.
  const env = compiler ? { npm_config_build_from_source: 'true' } : {};
  const { ok, text } = run('npm', ['ci'], env);
  if (!ok) fail(`installing dependencies failed:\n${text.split('\n').slice(-15).join('\n')}`);
  writeFileSync(stamp, wanted);
}

function newestSource() {
  let newest = 0;
  const visit = (folder) => {
    // The time of the folder: it changes when a file is added or removed.
    newest = Math.max(newest, statSync(folder).mtimeMs);
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      const path = join(folder, entry.name);
      if (entry.isDirectory()) visit(path);
      else if (/\.(ts|json)$/.test(entry.name)) newest = Math.max(newest, statSync(path).mtimeMs);
    }
  };
  for (const folder of SOURCE_FOLDERS) visit(join(root, folder));
  return Math.max(newest, statSync(join(root, 'tsconfig.json')).mtimeMs);
}

/** A test whose source is gone must not run on, and no image may hold what the source does not. */
function removeStaleOutput(folder) {
  const output = join(root, 'dist', folder);
  if (!existsSync(output)) return;
  for (const entry of readdirSync(output, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    const source = join(root, path.replace(/\.js(\.map)?$/, '.ts'));
    if (entry.isDirectory()) {
      removeStaleOutput(path);
      if (!existsSync(join(root, path))) rmSync(join(root, 'dist', path), { recursive: true });
    } else if (/\.js(\.map)?$/.test(entry.name) && !existsSync(source)) rmSync(join(root, 'dist', path));
  }
}

function build() {
  const stamp = join(root, 'dist', '.built');
  if (existsSync(stamp) && statSync(stamp).mtimeMs >= newestSource()) return;
  say('compiling');
  const startedMs = Date.now();
  const { ok, text } = run(process.execPath, [join(root, 'node_modules', 'typescript', 'bin', 'tsc')]);
  if (!ok) fail(`the build failed:\n${text}`);
  for (const folder of SOURCE_FOLDERS) removeStaleOutput(folder);
  writeFileSync(stamp, new Date(startedMs).toISOString());
}

function engines() {
  const wanted = inCi ? [...ENGINES, ...TEST_ENGINES] : [...ENGINES];
  if (!engineAnswers() && !onPath('dockerd')) wanted.push(CONTAINER_ENGINE);
  if (inCi && !run('docker', ['compose', 'version']).ok) wanted.push(COMPOSE);
  const missing = wanted.filter(({ file }) => !existsSync(file)).map((engine) => engine.package);
  if (missing.length === 0) return;
  const remedy = `apt-get install ${missing.join(' ')}`;
  const mayInstall = process.env.PLUGPULL_NO_INSTALL !== '1';
  if (!mayInstall || process.getuid?.() !== 0 || !onPath('apt-get')) {
    process.stderr.write(
      `plugpull setup: not installed, so not measured: ${missing.join(', ')} (as root: ${remedy})\n`,
    );
    return;
  }
  process.stderr.write(`plugpull setup: ${remedy}\n`);
  // RUNLEVEL=1 keeps the packages from starting their services, for example the mail server that comes with a
  // test client.
  const env = { DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' };
  run('apt-get', ['update', '-qq'], env);
  const { ok, text } = run('apt-get', ['install', '-y', '-qq', '--no-install-recommends', ...missing], env);
  if (!ok)
    process.stderr.write(
      `plugpull setup: ${remedy} failed; what needs it is not measured\n${text.slice(-500)}\n`,
    );
}

function containerEngine() {
  const why = startEngine(stateFolder);
  if (why !== undefined) {
    process.stderr.write(`plugpull setup: ${why}; runtime docker is not measured\n`);
    return;
  }
  // Build the images now: otherwise the build would use the time budget of the first gate.
  const images = run(process.execPath, [join(root, 'dist', 'docker', 'main.js')]);
  if (!images.ok)
    process.stderr.write(`plugpull setup: images cannot be built:\n${images.text.slice(-500)}\n`);
}

checkNode();
withLock(() => {
  if (isCheckout) {
    dependencies();
    build();
  }
  if (wantEngines) {
    engines();
    containerEngine();
  }
});

// Sets up a checkout: npm packages, build, and the engines that faults and tests use.
// It is plain Node, because it runs before anything is installed.
//
//   node docker/setup.mjs [--quiet] [--engines gate|all]
//
// --engines gate installs what the gate of the reference queue needs. --engines all, or the variable CI, installs everything,
// starts a container engine and builds the images. With PLUGPULL_NO_INSTALL=1 no Debian packages are installed.
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build, needsBuild } from './setup/build.mjs';
import { run, runningPids, stopChildren } from './setup/child.mjs';
import { installDependencies, whyInstall } from './setup/dependencies.mjs';
import { enginesToInstall, installEngines } from './setup/engines.mjs';
import { takeLock, UnwritableFolder } from './setup/lock.mjs';
import { Progress, seconds } from './setup/progress.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
/** False for an installed npm package, which is complete: it needs engines only, and its folder may be read-only. */
const isCheckout = existsSync(join(root, 'tsconfig.json'));
/** Folder of the lock and the logs. That of a checkout is always the same: its lock must keep out every other set-up. */
const stateFolder = isCheckout ? join(root, '.plugpull') : resolve(process.env.PLUGPULL_STATE ?? '.plugpull');
const quiet = process.argv.includes('--quiet');
const inCi = Boolean(process.env.CI);
const engines = scopeOfEngines();
const progress = new Progress({
  write: (text) => process.stderr.write(text),
  isTerminal: process.stderr.isTTY === true && process.env.TERM !== 'dumb',
  columns: process.stderr.columns,
});
// A closed stderr must not end the set-up.
process.stderr.on('error', () => {});

const fail = (line, code = 4) => {
  progress.say(line);
  process.exitCode = code;
};

function scopeOfEngines() {
  if (inCi && isCheckout) return 'all';
  const at = process.argv.indexOf('--engines');
  if (at === -1) return 'none';
  return process.argv[at + 1];
}

function isNodeSupported() {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  return major > 20 || (major === 20 && minor >= 19);
}

async function containerEngine() {
  const script = `
    const { startEngine } = await import(${JSON.stringify(new URL('start-engine.mjs', import.meta.url).href)});
    const why = startEngine(${JSON.stringify(stateFolder)});
    if (why !== undefined) { console.log(why); process.exit(1); }`;
  const state = (what) => (elapsedMs) => `${what}: ${seconds(elapsedMs)}`;
  const started = await progress.during('container engine', state('starting the container engine'), () =>
    run(process.execPath, ['--input-type=module', '-e', script]),
  );
  if (!started.ok) return progress.say(`${started.text.trim()}; runtime docker is not measured`);
  // Build the images now: otherwise the build would use the time budget of the first gate.
  let last = '';
  const images = await progress.during(
    'images of the reference implementations and of the kit',
    (elapsedMs) => `images: ${seconds(elapsedMs)} ${last}`,
    () =>
      run(process.execPath, [join(root, 'dist', 'docker', 'main.js')], {
        cwd: root,
        onLine: (line) => {
          last = line.replace(/[^\x20-\x7e]/g, '').slice(0, 60);
        },
      }),
  );
  if (!images.ok) progress.say(`images cannot be built:\n${images.text.slice(-500)}`);
}

/** Returns what a set-up would have to write here, as a phrase; undefined when everything is there. */
async function workToDo() {
  if (isCheckout) {
    const why = await whyInstall(root);
    if (why !== undefined) return `npm packages must be installed (${why})`;
    if (needsBuild(root)) return 'the sources must be compiled';
  }
  if (engines === 'none') return undefined;
  const packages = await enginesToInstall({ scope: engines, forTests: inCi && isCheckout });
  return packages === undefined ? undefined : `engines must be installed (${packages})`;
}

/**
 * Lets a user go on in the folder of another one, where no lock can be taken, when there is nothing to write.
 * @throws Error that says what is to be done, and who can do it.
 */
async function goOnWithoutLock(unwritable) {
  const work = await workToDo();
  if (work !== undefined) {
    const command = isCheckout ? 'run npm run setup as its owner' : 'run it as its owner';
    throw new Error(`${unwritable.message}, and ${work}: ${command}`);
  }
  // It says which engines this user cannot install.
  if (engines !== 'none')
    await installEngines({ stateFolder, progress, scope: engines, forTests: inCi && isCheckout });
  if (engines === 'all') await containerEngine();
  if (!quiet) progress.say('ready');
}

async function setUp() {
  const lock = await takeLock(join(stateFolder, 'setup.lock'), progress).catch((error) => {
    if (error instanceof UnwritableFolder) return goOnWithoutLock(error);
    throw error;
  });
  if (lock === undefined) return;
  for (const [signal, code] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ])
    process.once(signal, () => {
      stopChildren();
      // The lock names the programs: while one of them still writes, it keeps out the next set-up.
      if (runningPids().length === 0) lock.release();
      process.exit(code);
    });
  try {
    const onStart = () => lock.note(runningPids());
    const compile = async () => {
      if (!isCheckout) return;
      await installDependencies({ root, progress, onStart });
      await build({ root, progress, onStart });
    };
    const install = async () => {
      if (engines !== 'none')
        await installEngines({ stateFolder, progress, scope: engines, forTests: inCi && isCheckout });
    };
    // apt waits mostly for the network, and dpkg for the disk: both run beside npm and the compiler.
    const outcomes = await Promise.allSettled([compile(), install()]);
    const failed = outcomes.find(({ status }) => status === 'rejected');
    if (failed !== undefined) throw failed.reason;
    if (engines === 'all') await containerEngine();
    if (!quiet) progress.say('ready');
  } finally {
    lock.release();
  }
}

if (!['none', 'gate', 'all'].includes(engines)) fail(`--engines ${engines ?? ''}: expected gate or all`, 2);
else if (!isNodeSupported()) fail(`Node ${process.versions.node} found, 20.19 or later expected`, 2);
else {
  try {
    await setUp();
  } catch (error) {
    fail(error.message);
  }
}

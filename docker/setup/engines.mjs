// Installs the Debian packages that faults, runtimes and tests use.
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { engineAnswers } from '../start-engine.mjs';
import { run, runDetached } from './child.mjs';
import { seconds, timeLeft } from './progress.mjs';

/** What the gate of the reference queue needs: a file that shows the installation, the Debian package, and its use. */
const GATE_ENGINES = [
  { file: '/usr/bin/strace', package: 'strace', for: 'kill-syscall, tear, io-error, sweep' },
  { file: '/usr/bin/faketime', package: 'faketime', for: 'clock' },
  { file: '/usr/bin/qemu-storage-daemon', package: 'qemu-system-common', for: 'power-cut, crash states' },
];
const OTHER_ENGINES = [
  { file: '/usr/sbin/mkfs.xfs', package: 'xfsprogs', for: '--fs xfs' },
  { file: '/sbin/ip', package: 'iproute2', for: 'nodes of a cluster' },
  { file: '/usr/sbin/nft', package: 'nftables', for: 'nodes of a cluster' },
  { file: '/usr/bin/mmdebstrap', package: 'mmdebstrap', for: 'images without a registry, lab VM' },
  { file: '/usr/bin/qemu-system-x86_64', package: 'qemu-system-x86', for: 'lab VM' },
  { file: '/usr/bin/genext2fs', package: 'genext2fs', for: 'lab VM' },
];
/** Container engine. It is installed only if no engine answers: one from Docker's own packages works as well. */
const CONTAINER_ENGINE = { file: '/usr/sbin/dockerd', package: 'docker.io', for: '--runtime docker' };
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
  { file: '/usr/bin/chromium', package: 'chromium' },
].map((engine) => ({ ...engine, for: 'tests' }));
const COMPOSE = { file: '/usr/bin/docker-compose', package: 'docker-compose', for: 'tests' };

/** Returns the command by which a user installs the missing packages. */
const remedyFor = (missing) => `apt-get install ${missing.map((engine) => engine.package).join(' ')}`;
/** Longest wait for another apt. */
const LOCK_WAIT_MS = 60_000;
/** Age above which the list of packages is fetched again before the first attempt. */
const MAX_LIST_AGE_MS = 24 * 3_600_000;
/** Options that keep apt from asking, from waiting without an end, and from trying a dead network for minutes. */
const APT_OPTIONS = [
  '-o',
  'DPkg::Lock::Timeout=0',
  '-o',
  'Acquire::Retries=1',
  '-o',
  'Acquire::http::Timeout=20',
];
const LOCKED = /could not get lock|unable to (?:acquire|lock)|is another process using it/i;
const INTERRUPTED = /dpkg --configure -a/;

const onPath = (name) =>
  (process.env.PATH ?? '').split(':').some((folder) => folder !== '' && existsSync(join(folder, name)));
const isMissing = ({ file }) => !existsSync(file);

/**
 * Lists the packages that are missing.
 * @param {'gate' | 'all'} scope what the gate needs, or everything.
 * @param {boolean} forTests true adds what only tests use.
 */
async function missingEngines(scope, forTests) {
  if (scope === 'gate') return GATE_ENGINES.filter(isMissing);
  const wanted = [...GATE_ENGINES, ...OTHER_ENGINES, ...(forTests ? TEST_ENGINES : [])];
  if (!engineAnswers() && !onPath('dockerd')) wanted.push(CONTAINER_ENGINE);
  if (forTests && !(await run('docker', ['compose', 'version'])).ok) wanted.push(COMPOSE);
  return wanted.filter(isMissing);
}

/**
 * Installs missing packages if this is possible here. Otherwise, or after a failure, it prints what is not measured and the
 * command that installs the rest. It never throws: the engines that exist can be used.
 * @param {{ stateFolder: string, progress: import('./progress.mjs').Progress, scope: 'gate' | 'all', forTests: boolean }} options
 */
export async function installEngines({ stateFolder, progress, scope, forTests }) {
  await installMissing(stateFolder, progress, await missingEngines(scope, forTests));
}

/**
 * Returns the engines that `installEngines` would install, as a phrase; undefined when it installs none, because none is
 * missing or because this is not possible here.
 */
export async function enginesToInstall({ scope, forTests }) {
  const missing = await missingEngines(scope, forTests);
  if (missing.length === 0 || whyNotHere() !== undefined) return undefined;
  return missing.map((engine) => engine.package).join(' ');
}

/**
 * Installs packages that are missing.
 * @param folder folder for the log of apt.
 * @param lockWaitMs longest wait for another apt, in milliseconds.
 */
export async function installMissing(folder, progress, missing, lockWaitMs = LOCK_WAIT_MS) {
  if (missing.length === 0) return;
  const why = whyNotHere();
  if (why !== undefined) return reportMissing(progress, missing, why);
  for (const { package: name, for: use } of missing) progress.say(`installing ${name}: ${use}`);
  const failure = await aptInstall(folder, progress, missing, lockWaitMs);
  const left = missing.filter(isMissing);
  if (left.length > 0)
    reportMissing(progress, left, failure ?? 'the package was installed, but its program is missing');
}

function whyNotHere() {
  if (process.env.PLUGPULL_NO_INSTALL === '1') return 'PLUGPULL_NO_INSTALL=1';
  if (!onPath('apt-get')) return 'this is neither Debian nor Ubuntu';
  return process.getuid?.() === 0 ? undefined : 'not root';
}

/** Says what cannot be measured without the packages, one line each, then why, and the command that gets them. */
function reportMissing(progress, missing, why) {
  for (const { package: name, for: use } of missing)
    progress.say(`not installed: ${name}; not measured without it: ${use}`);
  const command = onPath('apt-get')
    ? `${process.getuid?.() === 0 ? '' : 'sudo '}${remedyFor(missing)}`
    : `install the packages that Debian calls ${missing.map((engine) => engine.package).join(' ')}`;
  progress.say(`${why}; to get the rest: ${command}`);
}

/** Installs packages. @returns undefined, or why it failed, as a phrase. */
async function aptInstall(folder, progress, missing, lockWaitMs) {
  mkdirSync(folder, { recursive: true });
  const names = missing.map((engine) => engine.package);
  const install = ['install', '-y', '-q', '--no-install-recommends', ...names];
  const deadlineMs = Date.now() + lockWaitMs;
  let mayUpdate = true;
  let mayRepair = true;
  // Without the list, the installation only says that it does not know the packages.
  let failedUpdate;
  if (areListsOld()) {
    mayUpdate = false;
    const updated = await apt(
      folder,
      progress,
      ['update', '-q', '-o', 'APT::Update::Error-Mode=any'],
      'fetching the list of packages',
      deadlineMs,
    );
    if (updated.isLocked) return updated.why;
    if (!updated.ok) failedUpdate = updated.why;
  }
  for (;;) {
    const { ok, why, isLocked, text } = await apt(
      folder,
      progress,
      install,
      `apt-get install ${names.join(' ')}`,
      deadlineMs,
    );
    if (ok) return undefined;
    // Another apt may have installed them meanwhile.
    if (!missing.some(isMissing)) return undefined;
    if (isLocked) return why;
    if (mayRepair && INTERRUPTED.test(text)) {
      mayRepair = false;
      await progress.during(
        'an earlier installation was interrupted: dpkg --configure -a',
        (elapsedMs) => `dpkg --configure -a: ${seconds(elapsedMs)}`,
        () => runLogged(folder, 'dpkg', ['--configure', '-a']),
      );
    } else if (mayUpdate) {
      mayUpdate = false;
      await apt(
        folder,
        progress,
        ['update', '-q', '-o', 'APT::Update::Error-Mode=any'],
        'fetching the list of packages',
        deadlineMs,
      );
    } else return failedUpdate ?? why;
  }
}

/** Reports whether apt's list of packages is missing or old. */
function areListsOld() {
  const folder = '/var/lib/apt/lists';
  try {
    const times = readdirSync(folder)
      .filter((name) => /_Packages(\.\w+)?$/.test(name))
      .map((name) => statSync(join(folder, name)).ctimeMs);
    return times.length === 0 || Date.now() - Math.max(...times) > MAX_LIST_AGE_MS;
  } catch {
    return true;
  }
}

/** Runs apt-get, and again while another apt holds its lock, until `deadlineMs`. */
async function apt(folder, progress, args, what, deadlineMs) {
  for (;;) {
    const state = aptState(join(folder, 'apt-status.log'));
    const { ok, text } = await progress.during(
      what,
      (elapsedMs) => `${what.slice(0, 40)}: ${seconds(elapsedMs)}${state(elapsedMs)}`,
      () => runLogged(folder, 'apt-get', [...APT_OPTIONS, '-o', 'APT::Status-Fd=3', ...args]),
    );
    const isLocked = !ok && LOCKED.test(text);
    const why = isLocked ? 'another apt holds the lock' : `apt-get ${args[0]} failed: ${lastError(text)}`;
    if (ok || !isLocked || Date.now() > deadlineMs) return { ok, text, isLocked, why };
    const waiting = (elapsedMs) => `waiting for another apt: ${seconds(elapsedMs)}`;
    await progress.during('another apt holds the lock; waiting', waiting, () => sleep(5000));
  }
}

/**
 * Runs apt or dpkg with its output in `apt.log` and the status of apt in `apt-status.log`. It goes on to its end when this
 * set-up is killed: an interrupted dpkg would leave half-installed packages.
 */
async function runLogged(folder, command, args) {
  const log = join(folder, 'apt.log');
  const status = join(folder, 'apt-status.log');
  for (const file of [log, status]) rmSync(file, { force: true });
  const fds = [openSync(log, 'a'), openSync(status, 'a')];
  // RUNLEVEL=1 keeps the packages from starting their services, for example the mail server that comes with a test client.
  const env = { DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1', LC_ALL: 'C' };
  try {
    const { ok, error } = await runDetached(command, args, env, [fds[0], fds[0], fds[1]]);
    return { ok, text: `${readFileSync(log, 'utf8')}${error}` };
  } finally {
    for (const fd of fds) closeSync(fd);
  }
}

/** Returns a function that describes what apt does, from the last line of its status. */
function aptState(file) {
  return (elapsedMs) => {
    // dlstatus:PACKAGE:PERCENT:TEXT while it fetches, pmstatus:PACKAGE:PERCENT:TEXT while it installs.
    const [kind, , percent, text] = lastLine(file).split(':');
    const done = Number(percent);
    if ((kind !== 'dlstatus' && kind !== 'pmstatus') || !Number.isFinite(done)) return '';
    const part = kind === 'dlstatus' ? 'fetched' : 'installed';
    return `, ${Math.round(done)} % ${part}${timeLeft(elapsedMs, done, 100)} (${(text ?? '').trim().slice(0, 60)})`;
  };
}

const TAIL_BYTES = 4096;

function lastLine(file) {
  try {
    const fd = openSync(file, 'r');
    try {
      const size = statSync(file).size;
      const bytes = Buffer.alloc(Math.min(TAIL_BYTES, size));
      readSync(fd, bytes, 0, bytes.length, size - bytes.length);
      return bytes.toString('utf8').trim().split('\n').at(-1) ?? '';
    } finally {
      closeSync(fd);
    }
  } catch {
    return '';
  }
}

/** Returns the first error of apt, without control characters. */
function lastError(text) {
  const line =
    text.split('\n').find((one) => /^(E|Err|W):/.test(one)) ?? text.trim().split('\n').at(-1) ?? '';
  return line.replace(/[^\x20-\x7e]/g, ' ').slice(0, 200);
}

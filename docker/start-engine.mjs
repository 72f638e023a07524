// Starts the container engine of this machine if none answers. It is plain Node, because the set-up uses it
// before the build.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, openSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';

const SOCKET = '/var/run/docker.sock';
const START_TIMEOUT_MS = 60_000;
const PING_TIMEOUT_MS = 2000;
/**
 * Program that pings the engine. It runs in a separate process, because the set-up is synchronous and has no
 * event loop.
 */
const PING = `
  const { request } = await import('node:http');
  const req = request({ socketPath: '${SOCKET}', path: '/_ping', timeout: ${PING_TIMEOUT_MS} }, (res) => process.exit(res.statusCode === 200 ? 0 : 1));
  req.on('error', () => process.exit(1));
  req.on('timeout', () => process.exit(1));
  req.end();`;

/**
 * Returns true if an engine answers on this machine, or if DOCKER_HOST names one, which the user must keep
 * running.
 */
export function engineAnswers() {
  if (process.env.DOCKER_HOST) return true;
  return existsSync(SOCKET) && spawnSync(process.execPath, ['--input-type=module', '-e', PING]).status === 0;
}

/**
 * Starts the engine and waits until it answers. It uses systemd if that runs; otherwise it starts dockerd itself.
 * @param logDir folder for the log of a dockerd that it starts itself.
 * @returns undefined if an engine answers, otherwise the reason why none does.
 */
export function startEngine(logDir) {
  if (engineAnswers()) return undefined;
  if (process.getuid?.() !== 0) return 'no container engine runs, and only root can start one';
  if (existsSync('/run/systemd/system')) {
    spawnSync('systemctl', ['start', 'docker']);
    return answersWithin(START_TIMEOUT_MS, () => true)
      ? undefined
      : 'systemctl start docker did not start it';
  }
  // Remove the pid file of a killed daemon: a new daemon refuses to start while the file names a living process.
  rmSync('/var/run/docker.pid', { force: true });
  const log = join(logDir, 'dockerd.log');
  // Try vfs too: overlay2 does not work where /var/lib is itself an overlay, for example in a container.
  for (const driver of ['overlay2', 'vfs']) {
    const output = openSync(log, 'a');
    const daemon = spawn('dockerd', ['--storage-driver', driver], {
      detached: true,
      stdio: ['ignore', output, output],
    });
    daemon.unref();
    if (answersWithin(START_TIMEOUT_MS, () => isRunning(daemon.pid))) return undefined;
  }
  const last = readFileSync(log, 'utf8').trim().split('\n').at(-1) ?? '';
  return `dockerd does not start: ${last.slice(0, 300)} (its log: ${log})`;
}

function answersWithin(timeoutMs, goesOn) {
  const deadline = Date.now() + timeoutMs;
  while (Date.now() < deadline && goesOn()) {
    if (engineAnswers()) return true;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200);
  }
  return false;
}

/** Returns false for a dead child, too: it stays a zombie until the event loop runs again. */
function isRunning(pid) {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return !'ZX'.includes(text[text.lastIndexOf(')') + 2] ?? 'X');
  } catch {
    return false;
  }
}

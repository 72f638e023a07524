// Starts the container engine of this machine where none answers. Plain Node: the set-up uses it before there is a build.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, openSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';

const SOCKET = '/var/run/docker.sock';
const START_TIMEOUT_MS = 60_000;
const PING_TIMEOUT_MS = 2000;
/** Asked in a process of its own: the set-up does one thing after the other and has no event loop to wait in. */
const PING = `
  const { request } = await import('node:http');
  const req = request({ socketPath: '${SOCKET}', path: '/_ping', timeout: ${PING_TIMEOUT_MS} }, (res) => process.exit(res.statusCode === 200 ? 0 : 1));
  req.on('error', () => process.exit(1));
  req.on('timeout', () => process.exit(1));
  req.end();`;

/** Whether an engine answers on this machine, or DOCKER_HOST names one, which is then the user's own affair. */
export function engineAnswers() {
  if (process.env.DOCKER_HOST) return true;
  return existsSync(SOCKET) && spawnSync(process.execPath, ['--input-type=module', '-e', PING]).status === 0;
}

/**
 * Starts it, through systemd where that runs, by hand elsewhere, and waits until it answers.
 * @param logDir where a daemon that is started by hand writes its log.
 * @returns why there is none, or undefined when there is one.
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
  // Left by a daemon that was killed; a new one refuses to start while it names a process that lives.
  rmSync('/var/run/docker.pid', { force: true });
  const log = join(logDir, 'dockerd.log');
  // Where /var/lib is itself an overlay (in a container) overlay2 cannot be used.
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

/** A child that has died is a zombie until the event loop runs again. */
function isRunning(pid) {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return !'ZX'.includes(text[text.lastIndexOf(')') + 2] ?? 'X');
  } catch {
    return false;
  }
}

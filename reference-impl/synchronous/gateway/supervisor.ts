import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { QueueError } from '../../common/platform/errors.js';
import { backoffMs } from './outbound/destination.js';

/**
 * Flags of Node for the services. Many sessions at once make much garbage, and V8 would rather let its heap grow than collect
 * it. A small young generation and a slow growth keep a worker below 300 MB. The heap has no other upper bound: a restore
 * lists every message.
 */
const HEAP_FLAGS = ['--max-semi-space-size=2', '--heap-growing-percent=20'];

/** A child process of the gateway. */
export interface Service {
  name: string;
  kind: 'helper' | 'worker';
  /**
   * Returns the arguments after the program path. `port` is the port of the previous worker, which a restart keeps.
   */
  args: (port: number | undefined) => string[];
}

/** An event of the gateway. It is printed as one line. */
export type GatewayEvent =
  | { event: 'started' | 'ready'; service: string; pid: number; port?: number }
  | { event: 'exit'; service: string; code: number | null; signal: string | null }
  | { event: 'restart'; service: string; inMs: number }
  | { event: 'stopped-too-long'; service: string; pid: number }
  | { event: 'ready'; service: 'gateway'; ports: number[] }
  | { event: 'stopping' | 'stopped' };

/** Options of the supervisor. */
export interface SupervisorOptions {
  /** Path of the program that runs the services as subcommands. */
  program: string;
  services: readonly Service[];
  /** Time in milliseconds after SIGTERM after which a service that still runs is killed. */
  stopTimeoutMs: number;
  emit: (event: GatewayEvent) => void;
}

const RESTART_BACKOFF = { initialMs: 50, maxMs: 5000 };
/** Uptime, in milliseconds, after which a service counts as healthy and its restart back-off starts again. */
const HEALTHY_UPTIME_MS = 10_000;

/** Interval of the checks for stopped services (SIGSTOP), in milliseconds. */
const STOP_CHECK_INTERVAL_MS = 1000;
/** Number of successive checks after which a stopped service is killed. */
const MAX_STOPPED_CHECKS = 5;

interface RunningService {
  service: Service;
  child: ChildProcess | undefined;
  port: number | undefined;
  wasReady: boolean;
  /** Whether the running child is ready. */
  isReady: boolean;
  consecutiveDeaths: number;
  /** Number of successive checks up to now that found the service stopped. */
  stoppedChecks: number;
  startedMs: number;
  timer: NodeJS.Timeout | undefined;
  whenReady: () => void;
}

/** Starts the processes of a whole gateway, restarts those that die, and stops them in order. */
export class Supervisor {
  readonly #options: SupervisorOptions;
  readonly #running: RunningService[] = [];
  #stopping = false;
  readonly #stopCheckTimer: NodeJS.Timeout;
  #giveUp: (reason: QueueError) => void = () => undefined;
  /** Rejects when a service cannot start because its settings are wrong. */
  readonly failed: Promise<never>;

  constructor(options: SupervisorOptions) {
    this.#options = options;
    this.failed = new Promise((_, reject) => {
      this.#giveUp = reject;
    });
    this.failed.catch(() => undefined);
    this.#stopCheckTimer = setInterval(() => this.#checkForStopped(), STOP_CHECK_INTERVAL_MS).unref();
  }

  /** Starts the helpers and then the workers, which need them. Resolves when all are ready. */
  async start(): Promise<void> {
    for (const kind of ['helper', 'worker'] as const) {
      const services = this.#options.services.filter((service) => service.kind === kind);
      await Promise.all(services.map((service) => this.#launch(service)));
    }
    const ports = this.#running.flatMap(({ port }) => (port === undefined ? [] : [port]));
    if (!this.#stopping) this.#options.emit({ event: 'ready', service: 'gateway', ports });
  }

  /**
   * Stops the workers by SIGTERM and then the helpers. The workers finish the messages in flight, for which
   * they need the helpers.
   */
  async stop(): Promise<void> {
    this.#stopping = true;
    clearInterval(this.#stopCheckTimer);
    this.#options.emit({ event: 'stopping' });
    for (const kind of ['worker', 'helper'] as const) {
      const ones = this.#running.filter(({ service }) => service.kind === kind);
      await Promise.all(ones.map((running) => this.#stopOne(running)));
    }
    this.#options.emit({ event: 'stopped' });
  }

  /** Sends SIGHUP to the workers that are ready. It would kill any other worker, which is about to read its files anyway. */
  hangUp(): void {
    for (const { service, child, isReady } of this.#running) {
      if (service.kind === 'worker' && isReady) child?.kill('SIGHUP');
    }
  }

  #launch(service: Service): Promise<void> {
    if (this.#stopping) return Promise.resolve();
    return new Promise((resolve) => {
      const running: RunningService = {
        service,
        child: undefined,
        port: undefined,
        wasReady: false,
        isReady: false,
        consecutiveDeaths: 0,
        stoppedChecks: 0,
        startedMs: 0,
        timer: undefined,
        whenReady: resolve,
      };
      this.#running.push(running);
      this.#spawn(running);
    });
  }

  #spawn(running: RunningService): void {
    const { service } = running;
    running.startedMs = performance.now();
    running.isReady = false;
    // The IPC channel carries no messages. It closes when the supervisor is killed, and the service then stops.
    const child = spawn(
      process.execPath,
      [...HEAP_FLAGS, this.#options.program, ...service.args(running.port)],
      {
        stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
      },
    );
    running.child = child;
    this.#options.emit({ event: 'started', service: service.name, pid: child.pid ?? 0 });
    if (child.stdout !== null) {
      createInterface({ input: child.stdout }).on('line', (line) => this.#onLine(running, line));
    }
    // A process that could not be made (no process left, no program) has no `exit`, and would never be restarted.
    child.once('error', () => {
      if (child.pid === undefined) this.#onExit(running, null, null);
    });
    child.once('exit', (code, signal) => this.#onExit(running, code, signal));
  }

  #onLine(running: RunningService, line: string): void {
    const port = parseReadyPort(line);
    if (port === undefined) return;
    running.port = port ?? running.port;
    running.wasReady = true;
    running.isReady = true;
    const pid = running.child?.pid ?? 0;
    this.#options.emit({
      event: 'ready',
      service: running.service.name,
      pid,
      ...(port === null ? {} : { port }),
    });
    running.whenReady();
  }

  #onExit(running: RunningService, code: number | null, signal: NodeJS.Signals | null): void {
    const { name } = running.service;
    running.child = undefined;
    this.#options.emit({ event: 'exit', service: name, code, signal });
    if (this.#stopping) {
      running.whenReady();
      return;
    }
    if (code === 2 && !running.wasReady) {
      this.#giveUp(new QueueError('bad-setting', `${name} cannot start; its error message is above`));
      return;
    }
    const wasHealthy = performance.now() - running.startedMs > HEALTHY_UPTIME_MS;
    running.consecutiveDeaths = wasHealthy ? 1 : running.consecutiveDeaths + 1;
    // Restart at once after the first death: a pause would only keep clients waiting.
    const inMs =
      running.consecutiveDeaths === 1 ? 0 : backoffMs(RESTART_BACKOFF, running.consecutiveDeaths - 1);
    this.#options.emit({ event: 'restart', service: name, inMs });
    running.timer = setTimeout(() => this.#spawn(running), inMs);
  }

  /**
   * Kills services that stay stopped. A stopped service blocks its clients, its messages and perhaps the
   * mutex of all processes. After the kill a successor takes over and repairs what was left half done. The
   * number of checks counts, not the time, because this process may have been stopped too.
   */
  #checkForStopped(): void {
    for (const running of this.#running) {
      const pid = running.child?.pid;
      running.stoppedChecks = pid !== undefined && isStopped(pid) ? running.stoppedChecks + 1 : 0;
      if (pid === undefined || running.stoppedChecks < MAX_STOPPED_CHECKS) continue;
      this.#options.emit({ event: 'stopped-too-long', service: running.service.name, pid });
      running.child?.kill('SIGKILL');
      running.stoppedChecks = 0;
    }
  }

  async #stopOne(running: RunningService): Promise<void> {
    clearTimeout(running.timer);
    const { child } = running;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    child.kill('SIGTERM');
    const timer = setTimeout(() => child.kill('SIGKILL'), this.#options.stopTimeoutMs);
    await gone;
    clearTimeout(timer);
  }
}

/** Returns whether a process is stopped by a signal. A process that a debugger holds does not count. */
function isStopped(pid: number): boolean {
  try {
    return /^\d+ \(.*\) T/s.test(readFileSync(`/proc/${pid}/stat`, 'latin1'));
  } catch {
    return false;
  }
}

/** Returns the port of a ready line, null if it has no port, and undefined if the line is not a ready line. */
function parseReadyPort(line: string): number | null | undefined {
  try {
    const message: unknown = JSON.parse(line);
    if (typeof message !== 'object' || message === null || !('event' in message) || message.event !== 'ready')
      return undefined;
    return 'port' in message && typeof message.port === 'number' ? message.port : null;
  } catch {
    return undefined;
  }
}

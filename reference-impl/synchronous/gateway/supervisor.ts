import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { QueueError } from '../platform/errors.js';
import { backoffMs } from './outbound/destination.js';

/** A process of the gateway. */
export interface Service {
  name: string;
  kind: 'helper' | 'worker';
  /** The arguments behind the program's own path; a worker that has had a port keeps it. */
  args: (port: number | undefined) => string[];
}

/** One line of what happened, as it is printed. */
export type GatewayEvent =
  | { event: 'started' | 'ready'; service: string; pid: number; port?: number }
  | { event: 'exit'; service: string; code: number | null; signal: string | null }
  | { event: 'restart'; service: string; inMs: number }
  | { event: 'stopped-too-long'; service: string; pid: number }
  | { event: 'ready'; service: 'gateway'; ports: number[] }
  | { event: 'stopping' | 'stopped' };

export interface SupervisorOptions {
  /** The program that the services are commands of. */
  program: string;
  services: readonly Service[];
  /** A service that was told to stop and is still there after so long is killed. */
  stopTimeoutMs: number;
  emit: (event: GatewayEvent) => void;
}

const RESTART_BACKOFF = { initialMs: 50, maxMs: 5000 };
/** A service that was up for so long is in good health: the back-off starts anew. */
const HEALTHY_UPTIME_MS = 10_000;

/** How often it is looked whether a service is stopped (SIGSTOP), and after how many looks in a row it is killed. */
const STOP_CHECK_INTERVAL_MS = 1000;
const MAX_STOPPED_CHECKS = 5;

interface RunningService {
  service: Service;
  child: ChildProcess | undefined;
  port: number | undefined;
  wasReady: boolean;
  consecutiveDeaths: number;
  /** Looks in a row at which it was stopped. */
  stoppedChecks: number;
  startedMs: number;
  timer: NodeJS.Timeout | undefined;
  whenReady: () => void;
}

/** Starts the processes of a whole gateway, restarts what dies, and stops them in order. */
export class Supervisor {
  readonly #options: SupervisorOptions;
  readonly #running: RunningService[] = [];
  #stopping = false;
  readonly #stopCheckTimer: NodeJS.Timeout;
  #giveUp: (reason: QueueError) => void = () => undefined;
  /** Rejects when a service cannot come up at all: its settings are wrong. */
  readonly failed: Promise<never>;

  constructor(options: SupervisorOptions) {
    this.#options = options;
    this.failed = new Promise((_, reject) => {
      this.#giveUp = reject;
    });
    this.failed.catch(() => undefined);
    this.#stopCheckTimer = setInterval(() => this.#checkForStopped(), STOP_CHECK_INTERVAL_MS).unref();
  }

  /** Helpers first, since workers need them; resolves when all are ready. */
  async start(): Promise<void> {
    for (const kind of ['helper', 'worker'] as const) {
      const services = this.#options.services.filter((service) => service.kind === kind);
      await Promise.all(services.map((service) => this.#launch(service)));
    }
    const ports = this.#running.flatMap(({ port }) => (port === undefined ? [] : [port]));
    if (!this.#stopping) this.#options.emit({ event: 'ready', service: 'gateway', ports });
  }

  /** Passes SIGTERM on: to the workers, which finish what is in flight, and then to the helpers that they need. */
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

  #launch(service: Service): Promise<void> {
    if (this.#stopping) return Promise.resolve();
    return new Promise((resolve) => {
      const running: RunningService = {
        service,
        child: undefined,
        port: undefined,
        wasReady: false,
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
    // The channel is there to be closed: a service whose supervisor was killed notices, and stops.
    const child = spawn(process.execPath, [this.#options.program, ...service.args(running.port)], {
      stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
    });
    running.child = child;
    this.#options.emit({ event: 'started', service: service.name, pid: child.pid ?? 0 });
    if (child.stdout !== null) {
      createInterface({ input: child.stdout }).on('line', (line) => this.#onLine(running, line));
    }
    child.once('error', () => undefined);
    child.once('exit', (code, signal) => this.#onExit(running, code, signal));
  }

  #onLine(running: RunningService, line: string): void {
    const port = parseReadyPort(line);
    if (port === undefined) return;
    running.port = port ?? running.port;
    running.wasReady = true;
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
      this.#giveUp(new QueueError('bad-setting', `${name} cannot start; it said why above`));
      return;
    }
    const wasHealthy = performance.now() - running.startedMs > HEALTHY_UPTIME_MS;
    running.consecutiveDeaths = wasHealthy ? 1 : running.consecutiveDeaths + 1;
    // The first death is answered at once: nobody waits for mail to be taken again.
    const inMs =
      running.consecutiveDeaths === 1 ? 0 : backoffMs(RESTART_BACKOFF, running.consecutiveDeaths - 1);
    this.#options.emit({ event: 'restart', service: name, inMs });
    running.timer = setTimeout(() => this.#spawn(running), inMs);
  }

  /**
   * A service that is stopped keeps its clients, its messages and perhaps the mutex of all. It is killed: a successor goes
   * on, and what it left half done is repaired. Looks are counted, not time, in which this process may have stood still too.
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

/** Stopped by a signal; one that a debugger holds is not. */
function isStopped(pid: number): boolean {
  try {
    return /^\d+ \(.*\) T/s.test(readFileSync(`/proc/${pid}/stat`, 'latin1'));
  } catch {
    return false;
  }
}

/** The port of a ready line, null when it names none; undefined when the line is something else. */
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

import { KitError, messageOf } from '../../conformance/errors.js';
import type { Recorder } from '../../conformance/history/recorder.js';
import type { Protocol } from '../../conformance/protocols/protocol.js';
import type { Service } from '../../faults/fault.js';
import { until } from '../../faults/waiting.js';
import type { Deployment } from '../runtime/runtime.js';

/** Parts of a round that the supervisor uses. */
export interface TargetSupervisorOptions {
  protocol: Protocol;
  /** The ports that must answer before the target counts as ready. */
  ports: readonly number[];
  recorder: Pick<Recorder, 'record'>;
  signal: AbortSignal;
  /**
   * Called just before the kit sends SIGKILL or SIGTERM to a service with live processes, and when a service has ended
   * by itself during a fault.
   */
  onCrash(): void;
}

/** Result of a start of the target. */
export type StartResult =
  | { ready: true; tookMs: number }
  | { ready: false; waitedMs: number; detail: string };

const PROBE_TIMEOUT_MS = 1000;
const PROBE_EVERY_MS = 15;
/** Delay before a service that exited by itself is started again. */
const RESTART_DELAY_MS = 50;
/**
 * Upper bound of the restarts after one `bringUp`. A service with more early exits than this is in a crash
 * loop.
 */
const MAX_RESTARTS_PER_START = 30;
/**
 * Shortest uptime after which an exit does not count as an early one. Early exits can become a crash loop.
 */
const STABLE_UPTIME_MS = 2000;

/**
 * Describes a service that exits by itself right after every start, even if the ports of the other services
 * are ready.
 */
export interface CrashLoop {
  detail: string;
  /**
   * True when the crash loop began before any fault: the target dies after every start anyway, so this is not
   * a failed recovery.
   */
  beforeFirstFault: boolean;
}

/**
 * Keeps the target alive, as an init process does. It starts the services in order, records every start and
 * exit, and restarts services that have died. It restarts nothing while a fault is active, because the fault
 * decides what lives.
 */
export class TargetSupervisor {
  readonly services: readonly Service[];
  readonly #options: TargetSupervisorOptions;
  readonly #deployment: Deployment;
  readonly #killed = new Set<string>();
  #mode: 'up' | 'fault' | 'ending' = 'fault';
  #restarts = 0;
  #lastExit = '';
  readonly #startedMs = new Map<string, number>();
  /** Number of exits right after a start, by service, since the service was last up for STABLE_UPTIME_MS. */
  readonly #earlyExits = new Map<string, number>();
  /**
   * Services that exited right after a start before any fault, and have not been up for STABLE_UPTIME_MS
   * since.
   */
  readonly #unstable = new Set<string>();
  #hadFault = false;
  #crashLoop: CrashLoop | undefined;
  /** Reason why no service can be started, when the target is not the cause. */
  #startError: KitError | undefined;

  constructor(deployment: Deployment, options: TargetSupervisorOptions) {
    this.#deployment = deployment;
    this.#options = options;
    this.services = deployment.services.map((service) => this.#wrapService(service));
  }

  /** Records a start. The runtime must call it at every start. */
  onStarted(service: string, incarnation: number): void {
    this.#killed.delete(service);
    this.#startedMs.set(service, performance.now());
    this.#options.recorder.record({ kind: 'service-started', service, incarnation });
  }

  /** Records an exit, and restarts the service if it should be up. The runtime must call it at every exit. */
  onExited(service: string, incarnation: number, code: number | null, signal: string | null): void {
    const byFault = this.#mode === 'fault' && signal === 'SIGKILL';
    const expected = this.#mode === 'ending' || byFault || this.#killed.has(service);
    this.#lastExit = `${service} ended with ${signal ?? `code ${code}`}`;
    this.#options.recorder.record({ kind: 'service-exited', service, incarnation, code, signal, expected });
    this.#noteUptime(service);
    // A fault that does not kill can also end a service, for example one that is out of space.
    if (this.#mode === 'fault' && !expected) this.#options.onCrash();
    if (this.#mode === 'up') setTimeout(() => void this.#restart(service), RESTART_DELAY_MS);
  }

  /** True while every service is kept up and restarted when it exits. */
  get isUp(): boolean {
    return this.#mode === 'up';
  }

  /** The first crash loop; undefined as long as every service stays up or comes up again. */
  get crashLoop(): CrashLoop | undefined {
    return this.#crashLoop;
  }

  #noteUptime(service: string): void {
    const upMs = performance.now() - (this.#startedMs.get(service) ?? 0);
    if (upMs >= STABLE_UPTIME_MS) {
      this.#unstable.delete(service);
      this.#earlyExits.delete(service);
      return;
    }
    if (this.#mode !== 'up' || this.#killed.has(service)) return;
    if (!this.#hadFault) this.#unstable.add(service);
    const exits = (this.#earlyExits.get(service) ?? 0) + 1;
    this.#earlyExits.set(service, exits);
    if (exits <= MAX_RESTARTS_PER_START) return;
    const detail = `${this.#lastExit} right after each of ${exits} starts`;
    this.#crashLoop ??= { detail, beforeFirstFault: this.#unstable.has(service) };
  }

  /** Stops all restarts until the next `bringUp`. Must be called before a fault. */
  suspendRestarts(): void {
    this.#hadFault = true;
    this.#mode = 'fault';
  }

  /** Counts every exit from now on as expected. */
  expectExits(): void {
    this.#mode = 'ending';
  }

  /**
   * Starts the services that are down and waits until the target is ready, at most `timeoutMs`.
   * @throws KitError bad-target when a command cannot be run, target-unavailable when the runtime is gone.
   */
  async bringUp(timeoutMs: number): Promise<StartResult> {
    const startMs = performance.now();
    this.#restarts = 0;
    this.#mode = 'up';
    for (const service of this.services) await startService(service);
    const ready = await until(
      async () =>
        this.#startError !== undefined || this.#restarts > MAX_RESTARTS_PER_START || (await this.#ready()),
      timeoutMs,
      this.#options.signal,
      PROBE_EVERY_MS,
    );
    if (this.#startError !== undefined) throw this.#startError;
    const tookMs = Math.round(performance.now() - startMs);
    if (ready && this.#restarts <= MAX_RESTARTS_PER_START) return { ready: true, tookMs };
    return { ready: false, waitedMs: tookMs, detail: this.#describeNotReady() };
  }

  #describeNotReady(): string {
    const down = this.services.filter((service) => service.pids().length === 0).map(({ name }) => name);
    const exit = this.#restarts > 0 ? `; ${this.#lastExit}, ${this.#restarts} times` : '';
    if (down.length > 0) return `not running: ${down.join(', ')}${exit}`;
    return `running, and not ready on port ${this.#options.ports.join(' and ')}${exit}`;
  }

  async #ready(): Promise<boolean> {
    const { protocol, ports } = this.#options;
    const answers = await Promise.all(ports.map((port) => protocol.ready(port, PROBE_TIMEOUT_MS)));
    return answers.every(Boolean) && this.services.every((service) => service.pids().length > 0);
  }

  async #restart(name: string): Promise<void> {
    const service = this.services.find((one) => one.name === name);
    if (this.#mode !== 'up' || this.#options.signal.aborted || service === undefined) return;
    this.#restarts++;
    if (this.#restarts > MAX_RESTARTS_PER_START) return;
    await startService(service).catch((error: unknown) => {
      if (error instanceof KitError && error.code === 'target-unavailable') this.#startError = error;
      this.#lastExit = `${name}: ${messageOf(error)}`;
      this.#restarts = MAX_RESTARTS_PER_START + 1;
    });
  }

  /** Wraps a service for a fault, so that the supervisor knows which services the kit itself has killed. */
  #wrapService(service: Service): Service {
    return {
      name: service.name,
      pids: () => service.pids(),
      start: (wrap, env) => service.start(wrap, env),
      waitForExit: (timeoutMs) => service.waitForExit(timeoutMs),
      signal: (signal) => {
        if (signal === 'SIGKILL' || signal === 'SIGTERM') {
          if (service.pids().length > 0) this.#options.onCrash();
          this.#killed.add(service.name);
        }
        return service.signal(signal);
      },
    };
  }

  /** Stops every process of the target: with SIGTERM, and with SIGKILL after `graceMs`. */
  async stop(graceMs: number): Promise<void> {
    this.expectExits();
    await this.#deployment.stop(graceMs);
  }
}

async function startService(service: Service): Promise<void> {
  try {
    await service.start();
  } catch (error) {
    if (error instanceof KitError) throw error;
    throw new KitError(
      'bad-target',
      `services.${service.name}.command: cannot be started: ${messageOf(error)}`,
      {
        cause: error,
      },
    );
  }
}

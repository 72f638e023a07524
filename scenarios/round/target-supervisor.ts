import { join } from 'node:path';
import { KitError, messageOf } from '../../conformance/errors.js';
import type { Recorder } from '../../conformance/history/recorder.js';
import { type Address, describeAddress } from '../../conformance/protocols/address.js';
import type { Protocol } from '../../conformance/protocols/protocol.js';
import type { Service } from '../../faults/fault.js';
import { until } from '../../faults/waiting.js';
import { readLogTail, sizeOf } from '../host/log-tail.js';
import type { Deployment } from '../runtime/runtime.js';

/** Parts of a round that the supervisor uses. */
export interface TargetSupervisorOptions {
  protocol: Protocol;
  /**
   * The addresses that must answer before the target counts as ready. In a cluster one of them is enough: a node that is not
   * the leader may refuse clients.
   */
  addresses: readonly Address[];
  /** Number of nodes of a cluster; undefined for a target without `nodes`. */
  nodes?: number | undefined;
  recorder: Pick<Recorder, 'record'>;
  signal: AbortSignal;
  /** Directory of the services' logs, one file `NAME.log` per service. */
  logDir: string;
  /** Name of `logDir` in the text for people, such as its path in the evidence. */
  logDirLabel: string;
  /** Called with one line when a service exits before the target was ready for the first time. */
  onFailedStart?(line: string): void;
  /**
   * Called just before the kit sends SIGKILL or SIGTERM to a service with live processes, and when a service has ended
   * by itself during a fault.
   */
  onCrash(): void;
}

/**
 * Result of a start of the target. `detail` is one line: which services are down, how the last one exited, and
 * the last lines of the logs with their names.
 */
export type StartResult =
  | { ready: true; tookMs: number }
  | { ready: false; waitedMs: number; detail: string };

const PROBE_TIMEOUT_MS = 1000;
/** Timeout of a probe of a cluster, whose nodes may have to agree before one answers. */
const CLUSTER_PROBE_TIMEOUT_MS = 3000;
const PROBE_EVERY_MS = 15;
/** Delay before a service that exited by itself is started again. */
const RESTART_DELAY_MS = 50;
/**
 * Upper bound of the restarts after one `bringUp`. A service with more early exits than this is in a crash
 * loop.
 */
const MAX_RESTARTS_PER_START = 30;
/**
 * Number of exits of each service after which the first start of a target has failed. While another service stays
 * alive, a service that waits for it may exit more often: up to MAX_RESTARTS_PER_START times.
 */
const MAX_FIRST_START_EXITS = 5;
/**
 * Number of early exits before the first fault from which on the faults are not the cause of later exits. Fewer may
 * come from a service that waits for another one.
 */
const MIN_EXITS_BEFORE_FAULT = 3;
/** Upper bound of the wait for services that exited right after their start. */
const SETTLE_TIMEOUT_MS = 30_000;
/** Bounds of the part of a log in which the reason of a failed start is looked for. */
const LOG_TAIL = { maxLines: 40, maxLineChars: 200 };
/** Number of last lines of a log in a `detail`. */
const LAST_LINES = 3;
/**
 * Matches a line that probably names the reason of an exit. Node prints it first and then a stack of calls,
 * Python prints it last.
 */
const REASON = /error|fatal|panic|exception|denied|fail|cannot|can't|no such|invalid|refused/i;
/** Number of services whose log a `detail` shows. */
const MAX_SHOWN_LOGS = 2;
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
  /** True from the first start of a target, which has no message yet, until it is ready. */
  #isFirstStart = false;
  /** Exits during the first start that left no process of the service, by service. */
  readonly #failedStarts = new Map<string, number>();
  /**
   * Sizes of the logs, by service: where the output of the incarnation that exited last begins, and where that
   * of the next one begins.
   */
  readonly #logStarts = new Map<string, { exited: number; next: number }>();
  readonly #startedMs = new Map<string, number>();
  /** Number of exits right after a start, by service, since the service was last up for STABLE_UPTIME_MS. */
  readonly #earlyExits = new Map<string, number>();
  /**
   * Services that exited right after a start before any fault, and have not been up for STABLE_UPTIME_MS
   * since.
   */
  readonly #unstable = new Set<string>();
  /** Number of exits right after a start before any fault, by service. */
  readonly #exitsBeforeFault = new Map<string, number>();
  #hadFault = false;
  #crashLoop: CrashLoop | undefined;
  /** Reason why no service can be started, when the target is not the cause. */
  #startError: KitError | undefined;

  constructor(deployment: Deployment, options: TargetSupervisorOptions) {
    this.#deployment = deployment;
    this.#options = options;
    this.services = deployment.services.map((service) => this.#wrapService(service));
    for (const { name } of this.services) {
      // An earlier start on another disk may have written to the same log.
      const size = sizeOf(this.#logPath(name));
      this.#logStarts.set(name, { exited: size, next: size });
    }
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
    const upMs = performance.now() - (this.#startedMs.get(service) ?? performance.now());
    this.#lastExit = `services.${service} exited with ${signal ?? `code ${code}`} after ${(upMs / 1000).toFixed(1)} s`;
    this.#markLog(service);
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
    if (!this.#hadFault) {
      this.#unstable.add(service);
      this.#exitsBeforeFault.set(service, (this.#exitsBeforeFault.get(service) ?? 0) + 1);
    }
    const exits = (this.#earlyExits.get(service) ?? 0) + 1;
    this.#earlyExits.set(service, exits);
    if (exits <= MAX_RESTARTS_PER_START) return;
    const detail = `${this.#lastExit} right after each of ${exits} starts${this.#describeLogs([service])}`;
    this.#crashLoop ??= { detail, beforeFirstFault: this.#neverStayedUp(service) };
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
   * @param kind `first` for a target that has no message yet: it has failed after fewer exits than a recovery,
   *   in which a service may fail until another one has released what the crash left locked.
   * @throws KitError bad-target when a command cannot be run, target-unavailable when the runtime is gone.
   */
  async bringUp(timeoutMs: number, kind: 'first' | 'recovery' = 'recovery'): Promise<StartResult> {
    const startMs = performance.now();
    this.#isFirstStart = kind === 'first';
    this.#restarts = 0;
    this.#failedStarts.clear();
    this.#mode = 'up';
    for (const service of this.services) await startService(service);
    const ready = await until(
      async () => this.#startError !== undefined || this.#hasGivenUp() || (await this.#ready()),
      timeoutMs,
      this.#options.signal,
      PROBE_EVERY_MS,
    );
    if (this.#startError !== undefined) throw this.#startError;
    const tookMs = Math.round(performance.now() - startMs);
    if (ready && !this.#hasGivenUp()) {
      this.#isFirstStart = false;
      return { ready: true, tookMs };
    }
    const detail = this.#describeNotReady();
    // The faults are not the cause when what is down now died again and again before the first one.
    const down = this.#downServices();
    if (kind === 'recovery' && down.length > 0 && down.every((name) => this.#neverStayedUp(name)))
      this.#crashLoop ??= { detail, beforeFirstFault: true };
    return { ready: false, waitedMs: tookMs, detail };
  }

  /**
   * Waits until each service that exited right after its start either stays up or has exited often enough to show that
   * it never does. Returns at once when none exited. Must be called before the first fault: otherwise the time of the
   * fault decides whether the target counts as one that never worked or as one that does not recover.
   */
  async waitUntilSettled(signal: AbortSignal): Promise<void> {
    const isSettled = (name: string) => {
      const isUp = this.services.some((service) => service.name === name && service.pids().length > 0);
      const upMs = performance.now() - (this.#startedMs.get(name) ?? performance.now());
      return this.#neverStayedUp(name) || (isUp && upMs >= STABLE_UPTIME_MS);
    };
    await until(() => [...this.#unstable].every(isSettled), SETTLE_TIMEOUT_MS, signal, PROBE_EVERY_MS);
  }

  #downServices(): string[] {
    return this.services.filter((service) => service.pids().length === 0).map(({ name }) => name);
  }

  /** Returns true if a service died often enough before the first fault that the faults are not the cause. */
  #neverStayedUp(name: string): boolean {
    return this.#unstable.has(name) && (this.#exitsBeforeFault.get(name) ?? 0) >= MIN_EXITS_BEFORE_FAULT;
  }

  #describeNotReady(): string {
    const down = this.#downServices();
    const exit = this.#restarts > 0 ? `; ${this.#lastExit}, ${this.#restarts} times` : '';
    if (down.length > 0) return `not running: ${down.join(', ')}${exit}${this.#describeLogs(down)}`;
    const logs = this.#describeLogs(this.services.map(({ name }) => name));
    return `running, and not ready on ${this.#options.addresses.map(describeAddress).join(' and ')}${exit}${logs}`;
  }

  /** Returns whether more restarts are useless. */
  #hasGivenUp(): boolean {
    if (this.#restarts > MAX_RESTARTS_PER_START) return true;
    if (!this.#isFirstStart) return false;
    return this.services.every(({ name }) => (this.#failedStarts.get(name) ?? 0) >= MAX_FIRST_START_EXITS);
  }

  /** Marks the end of an incarnation's output in its log. */
  #markLog(service: string): void {
    const exited = this.#logStarts.get(service)?.next ?? 0;
    this.#logStarts.set(service, { exited, next: sizeOf(this.#logPath(service)) });
  }

  #logPath(service: string): string {
    return join(this.#options.logDir, `${service}.log`);
  }

  /**
   * Describes the logs of services: their names, and the last lines that the current incarnation has written,
   * or the last one when none runs.
   */
  #describeLogs(names: readonly string[]): string {
    const shown = names.slice(0, MAX_SHOWN_LOGS).map((name) => {
      const starts = this.#logStarts.get(name);
      const isRunning = this.services.some((one) => one.name === name && one.pids().length > 0);
      const fromByte = isRunning ? starts?.next : starts?.exited;
      const lines = readLogTail(this.#logPath(name), { ...LOG_TAIL, fromByte: fromByte ?? 0 });
      const text = lines.length === 0 ? 'has no line of this start' : describeLastLines(lines);
      return `; ${join(this.#options.logDirLabel, `${name}.log`)} ${text}`;
    });
    return shown.join('');
  }

  async #ready(): Promise<boolean> {
    const { protocol, addresses, nodes } = this.#options;
    const hasProcesses = () => this.services.every((service) => service.pids().length > 0);
    if (nodes === undefined) {
      const answers = await Promise.all(addresses.map((one) => protocol.ready(one, PROBE_TIMEOUT_MS)));
      return answers.every(Boolean) && hasProcesses();
    }
    if (!hasProcesses()) return false;
    const probe = async (one: Address) => {
      if (!(await protocol.ready(one, CLUSTER_PROBE_TIMEOUT_MS, { replicas: nodes })))
        throw new Error('not ready');
    };
    return Promise.any(addresses.map(probe)).then(hasProcesses, () => false);
  }

  async #restart(name: string): Promise<void> {
    const service = this.services.find((one) => one.name === name);
    if (this.#mode !== 'up' || this.#options.signal.aborted || service === undefined) return;
    // A daemon whose parent exits has live processes: its exit is no failed start.
    if (this.#isFirstStart && service.pids().length === 0) this.#noteFailedStart(name);
    this.#restarts++;
    if (this.#hasGivenUp()) return;
    await startService(service).catch((error: unknown) => {
      if (error instanceof KitError && error.code === 'target-unavailable') this.#startError = error;
      this.#lastExit = `${name}: ${messageOf(error)}`;
      this.#restarts = MAX_RESTARTS_PER_START + 1;
    });
  }

  #noteFailedStart(name: string): void {
    const count = (this.#failedStarts.get(name) ?? 0) + 1;
    this.#failedStarts.set(name, count);
    if (count === 1)
      this.#options.onFailedStart?.(`${this.#lastExit}, before it was ready; it is started again`);
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

/** Returns the last lines, and before them the last line that probably names the reason, if it is not one of them. */
function describeLastLines(lines: readonly string[]): string {
  const last = lines.slice(-LAST_LINES);
  const reason = lines.slice(0, -LAST_LINES).findLast((line) => REASON.test(line));
  const end = `ends with: ${last.join(' | ')}`;
  return reason === undefined || last.some((line) => REASON.test(line))
    ? end
    : `says: ${reason.trim()}, and ${end}`;
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

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import type { Service } from '../../../faults/fault.js';
import { until } from '../../../faults/waiting.js';
import { BoundedLog } from '../../host/bounded-log.js';
import { withDescendants } from '../../host/descendants.js';
import { allProcesses, isMarked, type ProcessEntry, processEntry, sendSignal } from '../../host/processes.js';
import { stopProcesses } from '../../host/stop-processes.js';
import { type DeploymentPlan, type PlannedService, RUN_VARIABLE, SERVICE_VARIABLE } from '../runtime.js';
import type { EscapeWatch } from './escapes.js';
import type { ProcessCommand } from './process-command.js';

/**
 * One service as a separate process group. A process that leaves the group (a daemon that forks and starts
 * its own session) is still identified by its environment, which children inherit. One that has also cleared its
 * environment has escaped: it gets every signal but SIGTERM, and it does not count as a sign that the service lives.
 */
export class ProcessService implements Service {
  readonly name: string;
  readonly #service: PlannedService;
  readonly #plan: DeploymentPlan;
  readonly #commandFor: ProcessCommand;
  readonly #logPath: string;
  readonly #log: BoundedLog;
  readonly #escapes: EscapeWatch;
  #isNamespaceKnown = false;
  #leader: ChildProcess | undefined;
  /** Process group of the last incarnation, while it may have members. */
  #group: number | undefined;
  #starting: Promise<void> | undefined;
  #incarnation = 0;

  /** @param commandFor makes the command that is started from that of the service. */
  constructor(
    service: PlannedService,
    plan: DeploymentPlan,
    logPath: string,
    commandFor: ProcessCommand,
    escapes: EscapeWatch,
  ) {
    this.#escapes = escapes;
    this.name = service.name;
    this.#service = service;
    this.#plan = plan;
    this.#commandFor = commandFor;
    this.#logPath = logPath;
    this.#log = new BoundedLog(logPath);
  }

  /** Bounds the log of the running service. Must be called often. */
  checkLog(): void {
    this.#log.check();
  }

  /** Takes out of the log what was dropped. No process of the service may live any more. */
  compactLog(): void {
    this.#log.compact();
  }

  pids(): number[] {
    return this.#pidsAmong(allProcesses());
  }

  #pidsAmong(processes: readonly ProcessEntry[]): number[] {
    const members = processes.filter((entry) => entry.group === this.#group).map((entry) => entry.pid);
    if (members.length === 0 && this.#leader === undefined) this.#group = undefined;
    const markers = { [RUN_VARIABLE]: this.#plan.runId, [SERVICE_VARIABLE]: this.name };
    const marked = processes.filter((entry) => isMarked(entry, markers)).map((entry) => entry.pid);
    if (!this.#isNamespaceKnown)
      this.#isNamespaceKnown = [...members, ...marked].some((pid) => this.#escapes.note(this.name, pid));
    return [...withDescendants(new Set([...members, ...marked]), processes)];
  }

  /** Lists the live processes of the service and those that have escaped from it. */
  #allPids(): number[] {
    const processes = allProcesses();
    return [...this.#pidsAmong(processes), ...this.#escapes.list(this.name, processes)];
  }

  async signal(signal: 'SIGKILL' | 'SIGSTOP' | 'SIGCONT' | 'SIGTERM'): Promise<number> {
    return this.signalNow(signal);
  }

  /**
   * Sends a signal to all processes of the service. The group gets it in one system call, so that no member
   * sees another one dead before. Processes outside the group are looked up before the signal: once its
   * parent is dead, a process that has overwritten its environment cannot be identified any more
   * (PostgreSQL's backends leave the group and overwrite it, Postfix's daemons overwrite it). Before SIGKILL,
   * all processes are stopped for this scan: otherwise one could have a child that no scan has seen when its
   * parent is killed.
   * @returns the number of processes of the service that got the signal; processes that have escaped do not count.
   */
  signalNow(signal: 'SIGKILL' | 'SIGSTOP' | 'SIGCONT' | 'SIGTERM'): number {
    const group = this.#group;
    // SIGTERM asks a service to end with everything that it has started. What stays has escaped, and is reported.
    const list = () => (signal === 'SIGTERM' ? this.pids() : this.#allPids());
    const before = signal === 'SIGKILL' ? this.#stopAll() : list();
    const escaped = new Set(this.#escapes.list(this.name));
    const members = group !== undefined && sendSignal(-group, signal);
    const reached = new Set<number>();
    for (const pid of new Set([...before, ...list()])) {
      const inGroup = members && processEntry(pid)?.group === group;
      if ((inGroup || sendSignal(pid, signal)) && !escaped.has(pid)) reached.add(pid);
    }
    if (members) reached.add(group);
    return reached.size;
  }

  #stopAll(): Set<number> {
    // Stop the group before the first scan: a scan takes longer the more processes there are, and they go on
    // forking.
    if (this.#group !== undefined) sendSignal(-this.#group, 'SIGSTOP');
    return stopProcesses(
      () => this.#allPids(),
      (pid) => sendSignal(pid, 'SIGSTOP'),
    );
  }

  async start(wrap: readonly string[] = [], env: Readonly<Record<string, string>> = {}): Promise<void> {
    // Concurrent callers share one start: two would start two processes.
    this.#starting ??= this.#spawn(wrap, env).finally(() => {
      this.#starting = undefined;
    });
    return this.#starting;
  }

  async #spawn(wrap: readonly string[], env: Readonly<Record<string, string>>): Promise<void> {
    if (this.pids().length > 0) return;
    const { command, user, env: serviceEnv = {} } = this.#service;
    const start = this.#commandFor({ command, user, serviceEnv, wrap, env });
    this.#log.begin();
    const log = openSync(this.#logPath, 'a');
    try {
      const child = spawn(start.program, start.args, {
        cwd: this.#plan.workingDir,
        detached: true,
        stdio: ['ignore', log, log],
        env: {
          ...start.env,
          [RUN_VARIABLE]: this.#plan.runId,
          [SERVICE_VARIABLE]: this.name,
        },
      });
      await once(child, 'spawn');
      this.#trackChild(child);
    } finally {
      closeSync(log);
    }
  }

  async waitForExit(timeoutMs: number): Promise<void> {
    const gone = await until(() => this.#leader === undefined && this.#allPids().length === 0, timeoutMs);
    if (!gone) {
      throw new Error(
        `service ${this.name}: processes ${this.#allPids().join(', ')} still live after ${timeoutMs} ms`,
      );
    }
  }

  #trackChild(child: ChildProcess): void {
    const incarnation = ++this.#incarnation;
    this.#leader = child;
    this.#group = child.pid;
    this.#isNamespaceKnown = false;
    this.#plan.onStarted(this.name, incarnation, child.pid ?? 0);
    child.on('error', () => {});
    child.on('exit', (code, signal) => {
      if (this.#leader === child) this.#leader = undefined;
      this.#plan.onExited(this.name, incarnation, code, signal);
    });
  }
}

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import type { Service } from '../../../faults/fault.js';
import { until } from '../../../faults/waiting.js';
import { allProcesses, isMarked, type ProcessEntry, processEntry, sendSignal } from '../../host/processes.js';
import { stopProcesses } from '../../host/stop-processes.js';
import { type DeploymentPlan, RUN_VARIABLE, SERVICE_VARIABLE } from '../runtime.js';

/**
 * One service as a process group of its own. What leaves the group (a daemon that forks and starts a session of its
 * own) is still known by its environment, which children inherit.
 */
export class ProcessService implements Service {
  readonly name: string;
  readonly #command: readonly string[];
  readonly #plan: DeploymentPlan;
  readonly #logPath: string;
  #leader: ChildProcess | undefined;
  /** The group of the last incarnation, as long as it may have members. */
  #group: number | undefined;
  #starting: Promise<void> | undefined;
  #incarnation = 0;

  constructor(name: string, command: readonly string[], plan: DeploymentPlan, logPath: string) {
    this.name = name;
    this.#command = command;
    this.#plan = plan;
    this.#logPath = logPath;
  }

  pids(): number[] {
    const processes = allProcesses();
    const members = processes.filter((entry) => entry.group === this.#group).map((entry) => entry.pid);
    if (members.length === 0 && this.#leader === undefined) this.#group = undefined;
    const markers = { [RUN_VARIABLE]: this.#plan.runId, [SERVICE_VARIABLE]: this.name };
    const marked = processes.filter((entry) => isMarked(entry, markers)).map((entry) => entry.pid);
    return [...withDescendants(new Set([...members, ...marked]), processes)];
  }

  async signal(signal: 'SIGKILL' | 'SIGSTOP' | 'SIGCONT' | 'SIGTERM'): Promise<number> {
    return this.signalNow(signal);
  }

  /**
   * The group gets the signal in one system call, so that no member sees another one dead before. Who is in no group of
   * ours is looked for before too: when its parent is dead and it has overwritten its environment (PostgreSQL's backends
   * do both, Postfix's daemons the latter) nothing shows any more whose it was. All are stopped for that look, so that none
   * can have a child that nobody has seen when its parent is killed.
   */
  signalNow(signal: 'SIGKILL' | 'SIGSTOP' | 'SIGCONT' | 'SIGTERM'): number {
    const group = this.#group;
    const before = signal === 'SIGKILL' ? this.#stopAll() : this.pids();
    const members = group !== undefined && sendSignal(-group, signal);
    const reached = new Set<number>();
    for (const pid of new Set([...before, ...this.pids()])) {
      const inGroup = members && processEntry(pid)?.group === group;
      if (inGroup || sendSignal(pid, signal)) reached.add(pid);
    }
    if (members) reached.add(group);
    return reached.size;
  }

  #stopAll(): Set<number> {
    // Before anybody is looked for: a look takes its time, and the longer the more there are, and they go on forking.
    if (this.#group !== undefined) sendSignal(-this.#group, 'SIGSTOP');
    return stopProcesses(
      () => this.pids(),
      (pid) => sendSignal(pid, 'SIGSTOP'),
    );
  }

  async start(wrap: readonly string[] = [], env: Readonly<Record<string, string>> = {}): Promise<void> {
    // Two that ask at once get one process.
    this.#starting ??= this.#spawn(wrap, env).finally(() => {
      this.#starting = undefined;
    });
    return this.#starting;
  }

  async #spawn(wrap: readonly string[], env: Readonly<Record<string, string>>): Promise<void> {
    if (this.pids().length > 0) return;
    const [program, ...args] = [...wrap, ...this.#command];
    if (program === undefined) throw new Error(`service ${this.name} has an empty command`);
    const log = openSync(this.#logPath, 'a');
    try {
      const child = spawn(program, args, {
        cwd: this.#plan.workingDir,
        detached: true,
        stdio: ['ignore', log, log],
        env: {
          ...process.env,
          ...env,
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
    const gone = await until(() => this.#leader === undefined && this.pids().length === 0, timeoutMs);
    if (!gone) {
      throw new Error(
        `service ${this.name}: processes ${this.pids().join(', ')} still live after ${timeoutMs} ms`,
      );
    }
  }

  #trackChild(child: ChildProcess): void {
    const incarnation = ++this.#incarnation;
    this.#leader = child;
    this.#group = child.pid;
    this.#plan.onStarted(this.name, incarnation, child.pid ?? 0);
    child.on('error', () => {});
    child.on('exit', (code, signal) => {
      if (this.#leader === child) this.#leader = undefined;
      this.#plan.onExited(this.name, incarnation, code, signal);
    });
  }
}

/** The processes and all below them, in whatever order they are listed: numbers of processes begin anew at some time. */
export function withDescendants(
  roots: ReadonlySet<number>,
  processes: readonly Pick<ProcessEntry, 'pid' | 'parent'>[],
): Set<number> {
  const known = new Set(roots);
  for (let previousSize = -1; previousSize !== known.size; ) {
    previousSize = known.size;
    for (const { pid, parent } of processes) if (known.has(parent)) known.add(pid);
  }
  return known;
}

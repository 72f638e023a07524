import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { execa } from 'execa';
import { removeTree } from '../../faults/files/remove-tree.js';

interface EventLine {
  event: string;
  service?: string;
  pid?: number;
  port?: number;
}

/** A gateway with real worker and helper processes on a queue of its own. */
export class GatewayProcess {
  /** Ports of the workers, in their order. A worker that is restarted keeps its port. */
  readonly ports: number[] = [];
  /** Number of workers that ended although nobody had killed them. */
  crashes = 0;
  readonly #child: ChildProcess;
  /** Process ids of the running services by name. */
  readonly #pids = new Map<string, number>();
  readonly #killed = new Set<number>();
  readonly #exited: Promise<void>;
  readonly #queue: string;
  #isStopping = false;

  private constructor(child: ChildProcess, queue: string) {
    this.#child = child;
    this.#queue = queue;
    this.#exited = new Promise((resolve) => child.once('close', () => resolve()));
  }

  /**
   * Installs a queue in a new directory below `directory`, and starts a gateway on it.
   *
   * @param program path of the queue's program.
   * @param flags further flags of the gateway.
   * @throws Error when the gateway ends before its workers are ready.
   */
  static async start(options: {
    program: string;
    directory: string;
    workers: number;
    nextHop: string;
    install?: readonly string[];
    flags?: readonly string[];
  }): Promise<GatewayProcess> {
    const { program, workers, nextHop, install = [], flags = [] } = options;
    const queue = await mkdtemp(join(options.directory, 'plugpull-smtp-'));
    try {
      await execa(process.execPath, [program, 'install', '--queue', queue, ...install]);
      const args = ['gateway', '--queue', queue, '--workers', `${workers}`, '--next-hop', nextHop, ...flags];
      const child = spawn(process.execPath, [program, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
      const gateway = new GatewayProcess(child, queue);
      await gateway.#whenReady(child);
      return gateway;
    } catch (error) {
      removeTree(queue);
      throw error;
    }
  }

  /** Process id of a worker; undefined while it is down. */
  workerPid(worker: number): number | undefined {
    return this.#pids.get(`worker-${worker}`);
  }

  /** Kills a worker with SIGKILL. Returns false while it is down. The gateway starts it again. */
  killWorker(worker: number): boolean {
    const pid = this.workerPid(worker);
    if (pid === undefined) return false;
    this.#killed.add(pid);
    process.kill(pid, 'SIGKILL');
    return true;
  }

  /** Stops the gateway and removes its queue. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    this.#child.kill('SIGTERM');
    await this.#exited;
    removeTree(this.#queue);
  }

  #whenReady(child: ChildProcess): Promise<void> {
    return new Promise((resolve, reject) => {
      child.once('close', () => reject(new Error('the gateway ended before it was ready')));
      if (child.stdout === null) return;
      createInterface({ input: child.stdout }).on('line', (line) => {
        const event = JSON.parse(line) as EventLine;
        this.#onEvent(event);
        if (event.event === 'ready' && event.service === 'gateway') resolve();
      });
    });
  }

  #onEvent({ event, service = '', pid, port }: EventLine): void {
    const worker = /^worker-(\d+)$/.exec(service);
    if (event === 'ready' && pid !== undefined) {
      this.#pids.set(service, pid);
      if (worker !== null && port !== undefined) this.ports[Number(worker[1])] = port;
    }
    if (event !== 'exit') return;
    const exited = this.#pids.get(service) ?? 0;
    this.#pids.delete(service);
    if (worker !== null && !this.#killed.has(exited) && !this.#isStopping) this.crashes += 1;
  }
}

import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { KitError, type KitErrorCode } from '../../conformance/errors.js';
import { atExit } from '../at-exit.js';
import { withDescendants } from '../runtime/process-service.js';
import { allProcesses, sendSignal } from '../runtime/processes.js';
import { RUN_VARIABLE } from '../runtime/runtime.js';
import type { Found } from './found.js';
import type { Late } from './lookers.js';
import type { FromWorker, ToWorker, WorkerPlan } from './worker.js';

const PROGRAM = fileURLToPath(new URL('./worker.js', import.meta.url));
/** A worker that has one batch in hand has another one waiting. */
const BATCHES_AHEAD = 2;
const END_TIMEOUT_MS = 10_000;

export interface Job {
  /** Address of the state. */
  state: string;
  found(found: Found): void;
  /** There was no time for it. */
  late(late: Late): void;
}

/**
 * Hands jobs out to worker processes, a batch at a time, until there are no more or `stopped` says so; what was handed
 * out is waited for.
 * @throws what a worker failed with.
 */
export async function runJobs(
  plans: readonly WorkerPlan[],
  runId: string,
  jobs: Iterator<Job, void>,
  batchSize: number,
  stopped: () => boolean,
): Promise<void> {
  const workers = plans.map((plan) => new Worker(plan, runId));
  // What they have in use could not be removed.
  const forget = atExit(() => killAll(workers.flatMap(({ pid }) => pid ?? [])));
  try {
    await Promise.all(workers.map((worker) => worker.run(jobs, batchSize, stopped)));
  } finally {
    await Promise.all(workers.map((worker) => worker.end()));
    forget();
  }
}

/** Kills processes and all that they have started, without waiting for the event loop. */
function killAll(pids: readonly number[]): void {
  for (const pid of withDescendants(new Set(pids), allProcesses())) sendSignal(pid, 'SIGKILL');
}

class Worker {
  readonly #child: ChildProcess;
  readonly #plan: WorkerPlan;
  readonly #under = new Map<number, Job>();
  #number = 0;
  #batches = 0;

  constructor(plan: WorkerPlan, runId: string) {
    this.#plan = plan;
    this.#child = fork(PROGRAM, [], {
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
      // Not in the kit's process group: a Ctrl-C is the kit's to handle, and may come before a worker can ignore it.
      detached: true,
      env: { ...process.env, [RUN_VARIABLE]: runId },
    });
  }

  /** Undefined when it does not live. */
  get pid(): number | undefined {
    const { pid, exitCode, signalCode } = this.#child;
    return exitCode === null && signalCode === null ? pid : undefined;
  }

  async run(jobs: Iterator<Job, void>, batchSize: number, stopped: () => boolean): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      const step = () => {
        while (this.#batches < BATCHES_AHEAD) {
          const batch = stopped() ? [] : this.#take(jobs, batchSize);
          if (batch.length === 0) break;
          this.#batches += 1;
          this.#send({ batch });
        }
        if (this.#batches === 0) resolve();
      };
      this.#child.on('message', (message: FromWorker) => {
        try {
          if ('failed' in message) throw new KitError(codeOf(message.code), message.failed);
          if ('found' in message) {
            this.#batches -= 1;
            for (const { number, ...found } of message.found) {
              const job = this.#under.get(number);
              this.#under.delete(number);
              job?.found(found);
            }
            for (const { number, hung } of message.late) {
              this.#under.get(number)?.late({ hung });
              this.#under.delete(number);
            }
          }
          step();
        } catch (error) {
          reject(error);
        }
      });
      this.#child.on('error', reject);
      this.#child.on('exit', (code, signal) => {
        reject(
          new KitError('kit-failed', `a worker of the exploration ended with ${signal ?? `code ${code}`}`),
        );
      });
      this.#send({ plan: this.#plan });
    });
  }

  #take(jobs: Iterator<Job, void>, size: number): { number: number; state: string }[] {
    const batch: { number: number; state: string }[] = [];
    while (batch.length < size) {
      const next = jobs.next();
      if (next.done === true) break;
      const number = this.#number++;
      this.#under.set(number, next.value);
      batch.push({ number, state: next.value.state });
    }
    return batch;
  }

  #send(message: ToWorker): void {
    this.#child.send(message, () => {});
  }

  /** It lets go of its disk and ends; one that does not is killed. */
  async end(): Promise<void> {
    const child = this.#child;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const exit = once(child, 'exit');
    const timer = setTimeout(() => child.kill('SIGKILL'), END_TIMEOUT_MS);
    if (child.connected) child.disconnect();
    await exit;
    clearTimeout(timer);
  }
}

function codeOf(code: string): KitErrorCode {
  return code === 'bad-target' || code === 'target-unavailable' ? code : 'kit-failed';
}

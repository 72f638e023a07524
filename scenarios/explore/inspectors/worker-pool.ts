import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { KitError, type KitErrorCode } from '../../../conformance/errors.js';
import { atExit } from '../../host/at-exit.js';
import { withDescendants } from '../../host/descendants.js';
import { allProcesses, sendSignal } from '../../host/processes.js';
import { RUN_VARIABLE } from '../../runtime/runtime.js';
import type { Inspection } from './inspection.js';
import type { TimedOut } from './mount-inspector.js';
import type { FromWorker, ToWorker, WorkerPlan } from './worker.js';

const WORKER_PROGRAM = fileURLToPath(new URL('./worker.js', import.meta.url));
/**
 * Number of batches that a worker has at a time: one that it inspects, and one that waits, so that it never
 * idles.
 */
const MAX_BATCHES_IN_FLIGHT = 2;
/** Time in milliseconds that a worker has to end by itself. After this time the worker is killed. */
const END_TIMEOUT_MS = 10_000;

/** One crash state to inspect, with the functions that receive the result. */
export interface Job {
  /** Address of the state. */
  state: string;
  onInspected(inspection: Inspection): void;
  /** Called instead of `onInspected` when the time was over before there was a result. */
  onTimedOut(timedOut: TimedOut): void;
}

/**
 * Worker processes, each with its own restore program. They stay alive from one run of jobs to the next: to
 * start a worker and its program takes as long as the inspection of hundreds of states.
 */
export class WorkerPool {
  readonly #runId: string;
  readonly #workers: Worker[] = [];
  // Kill the workers before other clean-ups run: a disk that a worker still uses could not be removed.
  readonly #cancelAtExit = atExit(() => killAll(this.#workers.flatMap(({ pid }) => pid ?? [])));

  constructor(runId: string) {
    this.#runId = runId;
  }

  /**
   * Gives jobs to one worker per plan, a batch at a time, until there are no more jobs or `shouldStop`
   * returns true. Then waits for the results of all given jobs, and for every worker to close its disk.
   * @throws the error of a worker that failed. The pool must then be ended.
   */
  async run(
    plans: readonly WorkerPlan[],
    jobs: Iterator<Job, void>,
    batchSize: number,
    shouldStop: () => boolean,
  ): Promise<void> {
    await Promise.all(
      plans.map((plan, number) => {
        this.#workers[number] ??= new Worker(this.#runId);
        return this.#workers[number].run(plan, jobs, batchSize, shouldStop);
      }),
    );
  }

  /** Ends the workers. May be called twice. */
  async end(): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.end()));
    this.#cancelAtExit();
  }
}

/** Kills processes and everything that they have started. It does not need the event loop. */
function killAll(pids: readonly number[]): void {
  for (const pid of withDescendants(new Set(pids), allProcesses())) sendSignal(pid, 'SIGKILL');
}

/** The parent's side of one worker process. */
class Worker {
  readonly #child: ChildProcess;
  readonly #pending = new Map<number, Job>();
  #nextNumber = 0;
  #batchesInFlight = 0;
  #onMessage: (message: FromWorker) => void = () => {};
  #rejectRequest: (error: Error) => void = () => {};
  /** First error of the worker. The worker gets no more requests after it. */
  #failure: Error | undefined;

  constructor(runId: string) {
    this.#child = fork(WORKER_PROGRAM, [], {
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
      // Use another process group: the kit handles a Ctrl-C, and the signal may come before a worker can
      // ignore it.
      detached: true,
      env: { ...process.env, [RUN_VARIABLE]: runId },
    });
    this.#child.on('message', (message: FromWorker) => {
      if ('failed' in message) this.#failWith(new KitError(codeOf(message.code), message.failed));
      else this.#onMessage(message);
    });
    this.#child.on('error', (error) => this.#failWith(error));
    this.#child.on('exit', (code, signal) => {
      const how = signal ?? `code ${code}`;
      this.#failWith(new KitError('kit-failed', `a worker of the exploration ended with ${how}`));
    });
  }

  #failWith(error: Error): void {
    this.#failure ??= error;
    this.#rejectRequest(this.#failure);
  }

  /** Process id, or undefined when the process has ended. */
  get pid(): number | undefined {
    const { pid, exitCode, signalCode } = this.#child;
    return exitCode === null && signalCode === null ? pid : undefined;
  }

  /** Runs jobs by a plan; see `WorkerPool.run`. */
  async run(
    plan: WorkerPlan,
    jobs: Iterator<Job, void>,
    batchSize: number,
    shouldStop: () => boolean,
  ): Promise<void> {
    await this.#request({ plan }, (done) => (message) => {
      if ('inspections' in message) this.#settleBatch(message);
      while (this.#batchesInFlight < MAX_BATCHES_IN_FLIGHT) {
        const batch = shouldStop() ? [] : this.#nextBatch(jobs, batchSize);
        if (batch.length === 0) break;
        this.#batchesInFlight += 1;
        this.#send({ batch });
      }
      if (this.#batchesInFlight === 0) done();
    });
    await this.#request({ release: true }, (done) => done);
  }

  /** Sends a message, and passes the answers to a handler until it calls `done`. */
  async #request(
    message: ToWorker,
    handlerFor: (done: () => void) => (message: FromWorker) => void,
  ): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      if (this.#failure !== undefined) reject(this.#failure);
      const handle = handlerFor(resolve);
      this.#rejectRequest = reject;
      this.#onMessage = (answer) => {
        try {
          handle(answer);
        } catch (error) {
          reject(error);
        }
      };
      this.#send(message);
    });
  }

  #settleBatch({ inspections, timedOut }: Extract<FromWorker, { inspections: unknown }>): void {
    this.#batchesInFlight -= 1;
    for (const { number, ...result } of inspections) {
      const job = this.#pending.get(number);
      this.#pending.delete(number);
      job?.onInspected(result);
    }
    for (const { number, hung } of timedOut) {
      this.#pending.get(number)?.onTimedOut({ hung });
      this.#pending.delete(number);
    }
  }

  #nextBatch(jobs: Iterator<Job, void>, size: number): { number: number; state: string }[] {
    const batch: { number: number; state: string }[] = [];
    while (batch.length < size) {
      const next = jobs.next();
      if (next.done === true) break;
      const number = this.#nextNumber++;
      this.#pending.set(number, next.value);
      batch.push({ number, state: next.value.state });
    }
    return batch;
  }

  #send(message: ToWorker): void {
    this.#child.send(message, () => {});
  }

  /** Ends the process after it has closed its disk. Kills it when it does not end in time. */
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

/** Returns the code of a worker's error. An unexpected code counts as a failure of the kit. */
function codeOf(code: string): KitErrorCode {
  return code === 'bad-target' || code === 'target-unavailable' ? code : 'kit-failed';
}

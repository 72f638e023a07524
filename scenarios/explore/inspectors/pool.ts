import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { KitError, type KitErrorCode } from '../../../conformance/errors.js';
import { atExit } from '../../host/at-exit.js';
import { allProcesses, sendSignal } from '../../host/processes.js';
import { withDescendants } from '../../runtime/process/process-service.js';
import { RUN_VARIABLE } from '../../runtime/runtime.js';
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
 * Worker processes, each with a restoring program of its own. They go on from one run of jobs to the next: to start both
 * takes as long as hundreds of states.
 */
export class Crew {
  readonly #runId: string;
  readonly #workers: Worker[] = [];
  // What they have in use could not be removed.
  readonly #forget = atExit(() => killAll(this.#workers.flatMap(({ pid }) => pid ?? [])));

  constructor(runId: string) {
    this.#runId = runId;
  }

  /**
   * Hands jobs out, a batch at a time and one worker for each plan, until there are no more or `stopped` says so; what was
   * handed out is waited for, and every disk let go of.
   * @throws what a worker failed with; then the crew is to be ended.
   */
  async run(
    plans: readonly WorkerPlan[],
    jobs: Iterator<Job, void>,
    batchSize: number,
    stopped: () => boolean,
  ): Promise<void> {
    await Promise.all(
      plans.map((plan, number) => {
        this.#workers[number] ??= new Worker(this.#runId);
        return this.#workers[number].run(plan, jobs, batchSize, stopped);
      }),
    );
  }

  /** They end; may be called twice. */
  async end(): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.end()));
    this.#forget();
  }
}

/** Kills processes and all that they have started, without waiting for the event loop. */
function killAll(pids: readonly number[]): void {
  for (const pid of withDescendants(new Set(pids), allProcesses())) sendSignal(pid, 'SIGKILL');
}

class Worker {
  readonly #child: ChildProcess;
  readonly #under = new Map<number, Job>();
  #number = 0;
  #batches = 0;
  #heard: (message: FromWorker) => void = () => {};
  #fail: (error: Error) => void = () => {};
  /** Why it can do nothing more. */
  #over: Error | undefined;

  constructor(runId: string) {
    this.#child = fork(PROGRAM, [], {
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
      // Not in the kit's process group: a Ctrl-C is the kit's to handle, and may come before a worker can ignore it.
      detached: true,
      env: { ...process.env, [RUN_VARIABLE]: runId },
    });
    this.#child.on('message', (message: FromWorker) => {
      if ('failed' in message) this.#ends(new KitError(codeOf(message.code), message.failed));
      else this.#heard(message);
    });
    this.#child.on('error', (error) => this.#ends(error));
    this.#child.on('exit', (code, signal) => {
      const how = signal ?? `code ${code}`;
      this.#ends(new KitError('kit-failed', `a worker of the exploration ended with ${how}`));
    });
  }

  #ends(why: Error): void {
    this.#over ??= why;
    this.#fail(this.#over);
  }

  /** Undefined when it does not live. */
  get pid(): number | undefined {
    const { pid, exitCode, signalCode } = this.#child;
    return exitCode === null && signalCode === null ? pid : undefined;
  }

  async run(
    plan: WorkerPlan,
    jobs: Iterator<Job, void>,
    batchSize: number,
    stopped: () => boolean,
  ): Promise<void> {
    await this.#until({ plan }, (done) => (message) => {
      if ('found' in message) this.#take(message);
      while (this.#batches < BATCHES_AHEAD) {
        const batch = stopped() ? [] : this.#next(jobs, batchSize);
        if (batch.length === 0) break;
        this.#batches += 1;
        this.#send({ batch });
      }
      if (this.#batches === 0) done();
    });
    await this.#until({ rest: true }, (done) => done);
  }

  /** Sends a message, and hears the answers until they say that it is done. */
  async #until(message: ToWorker, hear: (done: () => void) => (message: FromWorker) => void): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      if (this.#over !== undefined) reject(this.#over);
      const heard = hear(resolve);
      this.#fail = reject;
      this.#heard = (answer) => {
        try {
          heard(answer);
        } catch (error) {
          reject(error);
        }
      };
      this.#send(message);
    });
  }

  #take({ found, late }: Extract<FromWorker, { found: unknown }>): void {
    this.#batches -= 1;
    for (const { number, ...what } of found) {
      const job = this.#under.get(number);
      this.#under.delete(number);
      job?.found(what);
    }
    for (const { number, hung } of late) {
      this.#under.get(number)?.late({ hung });
      this.#under.delete(number);
    }
  }

  #next(jobs: Iterator<Job, void>, size: number): { number: number; state: string }[] {
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

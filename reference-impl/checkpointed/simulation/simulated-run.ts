import type { SimMachine } from '../../common/simulation/machine.js';
import { createPick } from '../../common/simulation/medium.js';
import { Killed } from '../../common/simulation/process-lifetime.js';
import type { SimProcess } from '../../common/simulation/sim-process.js';
import type { Run } from '../../common/simulation/simulate.js';
import { Violation } from '../../common/simulation/violation.js';
import type { CheckpointedQueue } from '../queue/checkpointed-queue.js';
import type { TakenMessage } from '../queue/types.js';
import { checkCrashState, checkFiles, type LaterCrashes, NO_LATER_CRASH } from './crash-state.js';
import { Model, type ModelMessage, type ModelTransaction } from './model.js';
import { DEFAULT_QUEUES, type Operation, type Put } from './operations.js';
import type { SimWriter } from './sim-host.js';
import {
  CONTROL_PATH,
  contentsOf,
  drainPromises,
  recover,
  SimulatedServer,
  textOf,
} from './simulated-server.js';

/** Upper bound of the turns within which a queue without further faults answers everything. */
const MAX_SETTLING_TURNS = 600;
/** Simulated duration of one turn while a run settles, in milliseconds. */
const SETTLING_TURN_MS = 5;
const SETTLING_TASKS_PER_TURN = 6;
/** Upper bound of the rounds in which all messages are consumed. */
const MAX_EMPTYING_ROUNDS = 400;
/** Upper bound of the times that a message is submitted to an empty queue, and the turns in between. */
const MAX_TRIES = 20;
const TURNS_BETWEEN_TRIES = 60;
/** Sizes of the messages that an empty queue must accept. */
const SIZES_AFTER_EMPTYING = [0, 3000];

/** Codes of disk errors. The server ends after them, and its supervisor starts it again. */
const DISK_FAILURES: readonly string[] = ['sync-failed', 'EIO'];

/** A message that a receiver has. */
interface Held {
  taken: TakenMessage;
  message: ModelMessage;
}

/**
 * One run: a machine, a server on it with its writer processes, and the model of the clients' knowledge. The code of the queue
 * executes every operation.
 */
export class SimulatedRun implements Run<Operation> {
  crashes = 0;
  readonly model = new Model();
  #machine: SimMachine;
  readonly #log: (line: string) => void;
  #server: SimulatedServer | undefined;
  /** Writer processes that run, also those of servers that are dead. */
  #writers: SimWriter[] = [];
  #held: Held[] = [];
  #failure: unknown;
  /** Whether a transaction was confirmed since the last simulated power cut. */
  #isNewlyConfirmed = false;
  #startCount = 0;

  /** @param log callback that receives one line per event */
  constructor(installed: SimMachine, log: (line: string) => void = () => undefined) {
    this.#log = log;
    this.#machine = this.#attach(installed.copy());
    for (const name of DEFAULT_QUEUES) this.model.installed(name, 'strict');
  }

  get confirmed(): number {
    return this.model.confirmed;
  }

  #attach(machine: SimMachine): SimMachine {
    machine.log = this.#log;
    return machine;
  }

  /** Executes the operations in order, then settles, cuts the power, settles again and empties the queue. @throws Violation */
  async run(operations: readonly Operation[]): Promise<void> {
    await this.#start(1000);
    for (const operation of operations) {
      await this.#execute(operation);
      this.#throwFailure();
    }
    await this.#settle();
    await this.#execute({ do: 'crash', power: true, seed: operations.length, states: 2, again: 0 });
    await this.#settle();
    await this.#empty();
    this.#endAll();
  }

  #throwFailure(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  async #execute(operation: Operation): Promise<void> {
    switch (operation.do) {
      case 'commit':
        return this.#commit(operation.puts, operation.consume);
      case 'take':
        return this.#take(operation.queue, operation.count);
      case 'put-back':
        return this.#putBack(operation.count);
      case 'create':
      case 'change':
      case 'delete':
        return this.#define(operation);
      case 'checkpoint':
        return this.#checkpoint();
      case 'run':
        return this.#run(operation.turns, operation.order);
      case 'go':
        return this.#go(operation.who, operation.turns);
      case 'write-back':
        return this.#machine.writeBack(createPick(operation.pages));
      case 'wait':
        this.#machine.nowMs += operation.ms;
        return;
      case 'kill':
        return this.#kill(operation.afterSteps);
      case 'kill-writer':
        return this.#killWriter(operation.which, operation.afterSteps);
      case 'start':
        return this.#start(operation.turns);
      case 'fail-sync':
        this.#machine.syncsBeforeFailure = operation.after;
        this.#machine.failingSyncs = operation.count;
        return;
      case 'crash':
        return this.#crash(operation);
      case 'lose-control':
        return this.#loseControl(operation.seed);
      case 'settle':
        return this.#settle();
      case 'empty':
        await this.#settle();
        return this.#empty();
    }
  }

  /** The queue of the server, when its recovery is over. */
  get #queue(): CheckpointedQueue | undefined {
    return this.#server?.process.lifetime.alive ? this.#server.queue : undefined;
  }

  /** Starts the server if it does not run. It then takes some turns, at most until it is ready. */
  async #start(turns: number): Promise<void> {
    if (!this.#server) {
      this.#startCount += 1;
      const name = `server ${this.#startCount}`;
      this.#log(`${name} starts`);
      this.#server = new SimulatedServer(this.#machine, name, (queue) => this.#ready(queue));
      await drainPromises();
      this.#reapDead();
    }
    for (let turn = 0; turn < turns && this.#server && !this.#server.queue; turn += 1) {
      if (!(await this.#runNext(() => 0))) return;
    }
  }

  /** Checks the recovered queue with which the run continues. */
  #ready(queue: CheckpointedQueue): void {
    this.#log(`${this.#server?.process.name} is ready`);
    try {
      const found = contentsOf(queue);
      this.model.check(found);
      this.model.recovered(found);
    } catch (error) {
      this.#failure ??= error;
    }
  }

  /** Notes the end of processes. */
  #reapDead(): void {
    for (const writer of this.#server?.writers ?? []) {
      if (!this.#writers.includes(writer)) this.#writers.push(writer);
    }
    for (const writer of this.#writers) {
      if (writer.process.lifetime.alive || writer.hasEnded) continue;
      this.#log(`${writer.process.name} is killed`);
      this.crashes += 1;
      writer.killed();
    }
    this.#writers = this.#writers.filter(({ hasEnded }) => !hasEnded);
    const server = this.#server;
    if (!server || server.process.lifetime.alive) return;
    this.#server = undefined;
    this.#judgeEnd(server);
    server.process.terminate();
    for (const writer of this.#writers) writer.serverDied();
    this.#held = [];
    this.model.serverDied();
  }

  #judgeEnd({ process, failure }: SimulatedServer): void {
    if (failure === undefined) {
      this.#log(`${process.name} is killed`);
      this.crashes += 1;
      return;
    }
    this.#log(`${process.name} ends: ${failure instanceof Error ? failure.message : String(failure)}`);
    if (failure instanceof Violation) this.#failure ??= failure;
    else if (!DISK_FAILURES.includes(String((failure as { code?: unknown }).code)))
      this.#failure ??= new Violation('PP-10', `${process.name} fails: ${textOf(failure)}`);
  }

  #handleError(server: SimulatedServer, error: unknown): void {
    if (error instanceof Killed) server.process.lifetime.alive = false;
    else server.fail(error);
  }

  #kill(afterSteps: number): void {
    const lifetime = this.#server?.process.lifetime;
    if (!lifetime) return;
    if (afterSteps === 0) lifetime.alive = false;
    else lifetime.killAfter(afterSteps);
    this.#reapDead();
  }

  #killWriter(which: number, afterSteps: number): void {
    const lifetime = this.#writers[which % Math.max(1, this.#writers.length)]?.process.lifetime;
    if (!lifetime) return;
    if (afterSteps === 0) lifetime.alive = false;
    else lifetime.killAfter(afterSteps);
    this.#reapDead();
  }

  /** Runs code of the server up to its first wait. */
  #runAs<T>(code: (queue: CheckpointedQueue) => T): T | undefined {
    const server = this.#server;
    const queue = this.#queue;
    if (!server || !queue) return undefined;
    try {
      return code(queue);
    } catch (error) {
      this.#handleError(server, error);
      return undefined;
    } finally {
      this.#reapDead();
    }
  }

  #commit(puts: readonly Put[], consume: number): void {
    const consumed = this.#held.slice(0, consume);
    if (!this.#queue || (puts.length === 0 && consumed.length === 0)) return;
    this.#held = this.#held.slice(consume);
    const transaction = this.model.commit(
      puts,
      consumed.map(({ message }) => message),
    );
    const parts = [
      ...transaction.puts.map(({ number, queue }) => `m${number} into ${queue?.name}`),
      ...transaction.consumed.map(({ number }) => `without m${number}`),
    ];
    const submitted = transaction.puts.map(({ number, body }, at) => ({
      id: `m${number}`,
      body,
      queue: puts[at]?.queue,
    }));
    this.#follow(
      transaction,
      `transaction ${transaction.id} (${parts.join(', ')})`,
      async (queue) => {
        const taken = consumed.map((one) => one.taken);
        const { outcome } = await queue.commit({ puts: submitted, consumed: taken });
        return outcome === 'committed' ? 'confirmed' : 'rejected';
      },
      consumed,
    );
  }

  /** Begins a transaction, and notes its outcome when there is one. */
  #follow(
    transaction: ModelTransaction,
    what: string,
    commit: (queue: CheckpointedQueue) => Promise<'confirmed' | 'rejected'>,
    consumed: readonly Held[] = [],
  ): void {
    const server = this.#server;
    this.#log(`${server?.process.name} begins ${what}`);
    const answered = (outcome: 'confirmed' | 'rejected' | 'indefinite'): void => {
      if (!server?.process.lifetime.alive) return;
      this.#log(`${server.process.name} reports ${outcome} for ${what}`);
      try {
        this.model.answered(transaction, outcome);
      } catch (error) {
        this.#failure ??= error;
      }
      this.#isNewlyConfirmed ||= outcome === 'confirmed';
      // The transaction has not happened: its receivers still have their messages, and give them back.
      if (outcome === 'rejected') this.#giveBack(consumed);
    };
    this.#runAs(commit)?.then(answered, (error: unknown) => {
      if (error instanceof Violation) this.#failure ??= error;
      answered('indefinite');
    });
  }

  #take(name: string | undefined, count: number): void {
    for (let n = 0; n < count; n += 1) {
      const server = this.#server;
      const taken = this.#runAs((queue) => queue.take(name));
      if (!taken || !server?.process.lifetime.alive) return;
      const message = this.model.take(name, taken.id, taken.body);
      this.#log(`${server.process.name} delivers ${taken.id}`);
      this.#held.push({ taken, message });
    }
  }

  #putBack(count: number): void {
    this.#giveBack(count === 0 ? [] : this.#held.splice(-count));
  }

  #giveBack(held: readonly Held[]): void {
    for (const { taken, message } of held) {
      this.model.putBack(message);
      this.#log(`${taken.id} is given back`);
      this.#runAs((queue) => queue.putBack(taken));
    }
  }

  #define(operation: Extract<Operation, { do: 'create' | 'change' | 'delete' }>): void {
    if (!this.#queue) return;
    const { do: what, queue: name } = operation;
    const known = this.model.queue(name);
    if (known ? what === 'create' || this.model.isChanging(known) : what !== 'create') return;
    const wrong = (found: string): Violation =>
      new Violation('PP-9', `to ${what} the queue ${name}, the server answers ${found}`);
    if (what === 'create') {
      const { order } = operation;
      this.#follow(this.model.create(name, order), `to create ${name} (${order})`, async (queue) => {
        const outcome = await queue.createQueue({ name, order });
        if (outcome === 'exists') throw wrong(outcome);
        return outcome === 'created' ? 'confirmed' : 'rejected';
      });
    } else if (known && what === 'change') {
      const { order } = operation;
      this.#follow(this.model.change(known, order), `to change ${name} (${order})`, async (queue) => {
        const outcome = await queue.changeQueue({ name, order });
        if (outcome === 'no-such-queue') throw wrong(outcome);
        return outcome === 'changed' ? 'confirmed' : 'rejected';
      });
    } else if (known) {
      this.#follow(this.model.delete(known), `to delete ${name}`, async (queue) => {
        const outcome = await queue.deleteQueue(name);
        if (outcome === 'no-such-queue') throw wrong(outcome);
        return outcome === 'deleted' ? 'confirmed' : 'rejected';
      });
    }
  }

  #checkpoint(): void {
    const server = this.#server;
    if (!server) return;
    this.#log(`${server.process.name} is asked for a checkpoint`);
    // The failure of the queue reports its errors.
    this.#runAs((queue) => queue.checkpoint())?.catch(() => undefined);
  }

  /** Processes that could run. */
  #processes(): SimProcess[] {
    const all = this.#writers.map(({ process }) => process);
    if (this.#server) all.unshift(this.#server.process);
    return all;
  }

  async #run(turns: number, order: number): Promise<void> {
    const pick = createPick(order);
    for (let turn = 0; turn < turns; turn += 1) if (!(await this.#runNext(pick))) return;
  }

  /** Runs a task of any process. @returns false when there is none, or a requirement was violated */
  async #runNext(pick: (below: number) => number): Promise<boolean> {
    const ready = this.#processes().filter(({ kernel }) => kernel.tasks().length > 0);
    const process = ready[pick(ready.length)];
    if (!process) return false;
    await this.#runTurn(process, pick);
    return this.#failure === undefined;
  }

  async #go(who: 'server' | 'writer', turns: number): Promise<void> {
    for (let turn = 0; turn < turns; turn += 1) {
      const process = who === 'server' ? this.#server?.process : this.#writers[0]?.process;
      if (!process) return;
      await this.#runTurn(process, () => 0);
      this.#throwFailure();
    }
  }

  /** Runs one task of a process and everything that follows from it without a wait. */
  async #runTurn(process: SimProcess, pick: (below: number) => number): Promise<void> {
    const tasks = process.kernel.tasks();
    const task = tasks[pick(tasks.length)];
    if (!task) return;
    const server = this.#server;
    const handle = (error: unknown): void => {
      if (server?.process === process) this.#handleError(server, error);
      else if (!(error instanceof Killed)) this.#failure ??= error;
    };
    try {
      const result = task.run();
      if (result instanceof Promise) result.catch(handle);
    } catch (error) {
      handle(error);
    }
    await drainPromises();
    this.#reapDead();
    if (this.#isNewlyConfirmed && this.#failure === undefined) await this.#cutAfterConfirmation();
  }

  /**
   * Checks the crash state of a power cut right after a confirmation, with only flushed data. A confirmation that came too early
   * shows best here.
   */
  async #cutAfterConfirmation(): Promise<void> {
    this.#isNewlyConfirmed = false;
    this.crashes += 1;
    try {
      const { found, server } = await recover(this.#machine.afterPowerCut(0), 0, undefined);
      server.terminate();
      this.model.check(found);
    } catch (error) {
      this.#log('the power is cut, and all that was not flushed is gone');
      this.#failure ??= error;
    }
  }

  #endAll(): void {
    for (const writer of this.#writers) writer.process.terminate();
    this.#writers = [];
    this.#server?.terminate();
    this.#server = undefined;
    this.#held = [];
    this.model.serverDied();
    this.#machine.failingSyncs = 0;
  }

  /** Checks crash states of this moment one by one. The run continues from the last one. */
  async #crash({ power, seed, states, again }: Extract<Operation, { do: 'crash' }>): Promise<void> {
    this.#endAll();
    const number = power ? states : 1;
    const stateOf = (n: number): number => ((seed + n) % 5 < 3 ? (seed + n) % 5 : seed + n);
    const left = (n: number): SimMachine =>
      power ? this.#machine.afterPowerCut(stateOf(n)) : this.#machine.copy();
    for (let n = 0; n < number; n += 1) {
      const afterSteps = n === 0 ? again : 0;
      this.crashes += afterSteps > 0 ? 2 : 1;
      this.#log(power ? `the power is cut (state ${stateOf(n)})` : 'all processes are killed');
      const later: LaterCrashes = {
        afterSteps,
        powerSeed: again % 2 === 0 ? undefined : again,
        // Verify one state of each crash: the others differ little from it.
        isVerified: n === 0,
        readySeed: (seed + n) % 2 === 0 ? undefined : (seed + n) % 4,
      };
      await checkCrashState(left(n), this.model, later);
    }
    this.#machine = this.#attach(left(number - 1));
    await this.#start(seed % 4 === 0 ? seed % 30 : 1000);
  }

  async #loseControl(seed: number): Promise<void> {
    if (this.model.hasDecidedDeletion || this.model.isDeleting) return;
    this.#endAll();
    this.crashes += 1;
    this.#log('the power is cut, and the control file is gone');
    const left = this.#machine.afterPowerCut(seed % 3);
    left.damage(CONTROL_PATH, 'removed', createPick(seed));
    await checkCrashState(left.copy(), this.model, NO_LATER_CRASH);
    this.#machine = this.#attach(left);
    await this.#start(1000);
  }

  /** Ends all faults, lets the processes answer everything, and checks the contents and what is delivered. @throws Violation */
  async #settle(): Promise<void> {
    this.#machine.failingSyncs = 0;
    for (const { lifetime } of this.#processes()) lifetime.cancelKill();
    for (let turns = 0; turns < MAX_SETTLING_TURNS; turns += 1) {
      await this.#start(0);
      this.#throwFailure();
      if (this.#queue && !this.model.isWaiting) break;
      for (let task = 0; task < SETTLING_TASKS_PER_TURN; task += 1)
        if (!(await this.#runNext(() => 0))) break;
      this.#throwFailure();
      this.#machine.nowMs += SETTLING_TURN_MS;
    }
    const queue = this.#queue;
    if (!queue || this.model.isWaiting)
      throw new Violation('PP-10', 'a server without faults does not become ready, or does not answer');
    this.#putBack(this.#held.length);
    const found = contentsOf(queue);
    this.model.check(found);
    checkFiles(this.#machine, found);
    for (const known of this.model.certainQueues()) {
      const [first] = this.model.ready(known);
      const before = this.#held.length;
      this.#take(known.name, 1);
      const taken = this.#held[before]?.message;
      if (first && !taken) throw new Violation('PP-1', `m${first.number} was confirmed and is not delivered`);
    }
    this.#putBack(this.#held.length);
    this.#throwFailure();
  }

  /** Consumes all messages, and checks that the queue then accepts messages. @throws Violation */
  async #empty(): Promise<void> {
    for (
      let round = 0;
      this.model.certainQueues().some((queue) => this.model.ready(queue).length > 0);
      round += 1
    ) {
      if (round > MAX_EMPTYING_ROUNDS)
        throw new Violation('PP-8', 'the consumption of messages makes no progress');
      this.#take(undefined, 4);
      this.#commit([], 4);
      await this.#settle();
    }
    for (const sizeBytes of SIZES_AFTER_EMPTYING) {
      if (!(await this.#isAccepted(sizeBytes)))
        throw new Violation('PP-8', `an empty queue rejects a message of ${sizeBytes} bytes`);
      this.#take('q0', 1);
      this.#commit([], 1);
      await this.#settle();
    }
  }

  /** Submits a message until it is accepted. A checkpoint may have to make space first. */
  async #isAccepted(sizeBytes: number): Promise<boolean> {
    const before = this.model.confirmed;
    for (let tries = 0; tries < MAX_TRIES; tries += 1) {
      this.#commit([{ queue: 'q0', sizeBytes }], 0);
      await this.#settle();
      if (this.model.confirmed > before) return true;
      this.#checkpoint();
      for (let turn = 0; turn < TURNS_BETWEEN_TRIES; turn += 1) if (!(await this.#runNext(() => 0))) break;
      this.#throwFailure();
      this.#machine.nowMs += SETTLING_TURN_MS;
    }
    return false;
  }
}

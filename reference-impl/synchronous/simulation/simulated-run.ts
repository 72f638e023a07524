import type { SimMachine } from '../../common/simulation/machine.js';
import { createPick } from '../../common/simulation/medium.js';
import { Killed } from '../../common/simulation/process-lifetime.js';
import type { Run } from '../../common/simulation/simulate.js';
import { Violation } from '../../common/simulation/violation.js';
import { runHelper } from '../helper/helper.js';
import { LOCK } from '../index/lock-bytes.js';
import { OpenQueue } from '../queue/open.js';
import type { LockedMessage } from '../queue/types.js';
import { checkCrashState, NO_SECOND_CRASH } from './crash-state.js';
import { Model } from './model.js';
import { HELPER_INDEX, type Interruption, type Operation, WORKER_COUNT } from './operations.js';
import { INDEX_PATH, QueueProcess, simulatedSettings, verifyMachine } from './simulated-queue.js';

/** Upper bound of the turns within which a queue without further faults answers every submit. */
const MAX_SETTLING_TURNS = 600;
/** Simulated duration of one turn while a run settles, in milliseconds. */
const SETTLING_TURN_MS = 10;
const SETTLING_TASKS_PER_TURN = 3;
const TAKE_EVERYTHING = { count: 1000, bytes: 2 ** 30, due: () => true };

/** A running worker. `held` are the messages that it has taken, `unanswered` the ids of its pending submits. */
interface Worker {
  kind: 'worker';
  process: QueueProcess;
  queue: OpenQueue;
  stopped: boolean;
  held: { id: number; locked: LockedMessage }[];
  unanswered: Set<number>;
}

interface Helper {
  kind: 'helper';
  process: QueueProcess;
  stopped: boolean;
}

type Member = Worker | Helper;

/** Resolves when all pending promise callbacks have run. */
const drainPromises = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/**
 * One run: a machine, the processes of the queue on it, and the model of the clients' knowledge. The code of
 * the queue executes every operation.
 */
export class SimulatedRun implements Run<Operation> {
  /** Number of crash states that were restored and checked against the model, plus number of killed processes. */
  crashes = 0;
  readonly model = new Model();
  #machine: SimMachine;
  readonly #log: (line: string) => void;
  readonly #members: (Member | undefined)[] = [];
  #failure: unknown;
  /** Whether a message was confirmed since the last simulated power cut. */
  #isNewlyConfirmed = false;
  #startCount = 0;
  /** Whether an operation is running between two steps of another process. */
  #isInterrupting = false;

  get confirmed(): number {
    return this.model.confirmed;
  }

  /** @param log callback that receives one line per event */
  constructor(installed: SimMachine, log: (line: string) => void = () => undefined) {
    this.#log = log;
    this.#machine = this.#attach(installed.copy());
  }

  #attach(machine: SimMachine): SimMachine {
    machine.log = this.#log;
    machine.onSynced = (file, since) => {
      if (file === machine.file(INDEX_PATH)) this.model.vouch(since);
    };
    return machine;
  }

  /** Executes the operations in order, then settles, cuts the power and settles again. @throws Violation */
  async run(operations: readonly Operation[]): Promise<void> {
    this.#startAll(0);
    for (const operation of operations) {
      await this.#execute(operation);
      this.#throwFailure();
    }
    await this.#settle(true);
    await this.#execute({ do: 'crash', power: true, seed: operations.length, states: 2, again: 0 });
    await this.#settle();
  }

  #throwFailure(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  async #execute(operation: Operation): Promise<void> {
    switch (operation.do) {
      case 'submit':
        return this.#submit(this.#worker(operation.worker), operation.sizes);
      case 'run':
        return this.#run(operation.turns, operation.order);
      case 'go':
        return this.#runProcess(operation.who, operation.turns);
      case 'consume':
        return this.#consume(this.#worker(operation.worker));
      case 'turn':
      case 'take':
      case 'deliver':
      case 'unlock':
      case 'write-back':
        return this.#executeNow(operation);
      case 'wait':
        this.#machine.nowMs += operation.ms;
        return;
      case 'clock':
        this.#machine.dateOffsetMs += operation.jumpMs;
        return;
      case 'kill':
        return this.#kill(operation.who, operation.afterSteps);
      case 'interrupt':
        return this.#interrupt(operation);
      case 'replace':
        this.#kill(operation.who, 0);
        return this.#start(operation.who);
      case 'start':
        return this.#start(operation.who);
      case 'stop':
        return this.#stop(operation.who);
      case 'fail-sync':
        this.#machine.failingSyncs = 1;
        return;
      case 'crash':
        return this.#crash(operation);
      case 'lose-index':
        return this.#loseIndex(operation);
      case 'settle':
        return this.#settle();
    }
  }

  #executeNow(operation: Interruption): void {
    if (operation.do === 'write-back') this.#machine.writeBack(createPick(operation.pages));
    else if (operation.do === 'turn') this.#runTask(this.#worker(operation.worker));
    else if (operation.do === 'unlock') this.#unlock(this.#worker(operation.worker));
    else this.#take(this.#worker(operation.worker), operation.count);
    if (operation.do === 'deliver') this.#consume(this.#worker(operation.worker));
  }

  /**
   * Schedules an operation between two steps of a process. The operation waits until no process holds the
   * mutex: if the interrupted process held the mutex, the operation would wait forever.
   */
  #interrupt({ who, afterSteps, by }: Extract<Operation, { do: 'interrupt' }>): void {
    const member = this.#members[who];
    if (!member || (by.do !== 'write-back' && by.worker === who)) return;
    const machine = this.#machine;
    member.process.lifetime.interruptAfter(afterSteps, () => {
      if (machine !== this.#machine) return true;
      // Interruptions do not nest.
      if (this.#isInterrupting || machine.isLocked([LOCK.mutex, LOCK.opening])) return false;
      this.#log(`between two steps of ${member.process.name}:`);
      this.#isInterrupting = true;
      try {
        this.#executeNow(by);
      } finally {
        this.#isInterrupting = false;
      }
      return true;
    });
  }

  /** Runs the first task of a process up to its first wait. */
  #runTask(member: Member | undefined): void {
    const task = member?.process.kernel.tasks()[0];
    if (!member || !task) return;
    this.#log(`${member.process.name} runs its next ${task.kind}`);
    const result = this.#runAs(member, task.run);
    if (result instanceof Promise) result.catch((error: unknown) => this.#handleError(member.process, error));
  }

  #worker(who: number): Worker | undefined {
    const member = this.#members[who];
    return member?.kind === 'worker' && !member.stopped ? member : undefined;
  }

  /** Runs code of a process. A kill ends the code here; any other error is a failure of the queue. */
  #runAs<T>(member: { process: QueueProcess }, code: () => T): T | undefined {
    try {
      return code();
    } catch (error) {
      this.#handleError(member.process, error);
      return undefined;
    } finally {
      this.#reapDead();
    }
  }

  #handleError({ name, lifetime }: QueueProcess, error: unknown): void {
    if (error instanceof Killed) return;
    if (error instanceof Violation) this.#failure ??= error;
    else if (
      (error as { code?: string }).code === 'sync-failed' ||
      (error as { code?: string }).code === 'EIO'
    ) {
      // A restore gives up when its disk fails. Its supervisor would restart the process.
      lifetime.alive = false;
    } else this.#failure ??= new Violation('PP-10', `${name} fails: ${(error as Error).stack}`);
  }

  /** Removes the members that are dead. */
  #reapDead(): void {
    for (const [who, member] of this.#members.entries()) {
      if (!member || member.process.lifetime.alive) continue;
      this.#members[who] = undefined;
      this.#log(`${member.process.name} is killed`);
      this.crashes += 1;
      member.process.terminate();
      if (member.kind === 'worker') this.model.workerDied(member.process.name, [...member.unanswered]);
    }
  }

  #startAll(first: number): void {
    for (let n = 0; n <= HELPER_INDEX; n += 1) this.#start((first + n) % (HELPER_INDEX + 1));
  }

  #start(who: number): void {
    const existing = this.#members[who];
    if (existing) {
      existing.stopped = false;
      return;
    }
    this.#startCount += 1;
    if (who === HELPER_INDEX) this.#startHelper();
    else this.#startWorker(who);
  }

  #startWorker(who: number): void {
    const process = new QueueProcess(this.#machine, `worker ${who}.${this.#startCount}`);
    this.#log(`${process.name} starts`);
    const queue = this.#runAs({ process }, () => new OpenQueue(simulatedSettings, process.platform));
    if (!queue) {
      process.terminate();
      return;
    }
    this.#members[who] = { kind: 'worker', process, queue, stopped: false, held: [], unanswered: new Set() };
  }

  #startHelper(): void {
    const process = new QueueProcess(this.#machine, `helper.${this.#startCount}`);
    this.#log(`${process.name} starts`);
    const never = new AbortController();
    this.#members[HELPER_INDEX] = { kind: 'helper', process, stopped: false };
    runHelper(simulatedSettings, 0, never.signal, () => undefined, process.platform).catch(
      (error: unknown) => {
        this.#handleError(process, error);
        process.lifetime.alive = false;
      },
    );
    this.#reapDead();
  }

  #stop(who: number): void {
    const member = this.#members[who];
    if (member) member.stopped = true;
  }

  #kill(who: number, afterSteps: number): void {
    const member = this.#members[who];
    if (!member) return;
    if (afterSteps === 0) member.process.lifetime.alive = false;
    else member.process.lifetime.killAfter(afterSteps);
    this.#reapDead();
  }

  #submit(worker: Worker | undefined, sizes: readonly number[]): void {
    if (!worker) return;
    const messages = sizes.map((sizeBytes) => this.model.submit(sizeBytes));
    const ids = messages.map(({ id }) => id);
    const names = ids.map((id) => `m${id}`).join(', ');
    const { process, queue, unanswered } = worker;
    for (const id of ids) unanswered.add(id);
    this.#log(`${process.name} is given ${names} (${sizes.join(', ')} bytes)`);
    queue.enqueue(messages.map(({ body }) => body)).then(
      (outcome) => {
        if (!process.lifetime.alive) return;
        for (const id of ids) unanswered.delete(id);
        this.#log(`${process.name} reports ${outcome.outcome} for ${names}`);
        this.model.recordOutcome(ids, outcome);
        this.#isNewlyConfirmed ||= outcome.outcome === 'confirmed';
      },
      (error: unknown) => this.#handleError(process, error),
    );
  }

  async #run(turns: number, order: number): Promise<void> {
    const pick = createPick(order);
    for (let turn = 0; turn < turns; turn += 1) {
      const ready = this.#members.filter(
        (member) => member && !member.stopped && member.process.kernel.tasks().length > 0,
      );
      const member = ready[pick(ready.length)];
      if (!member) return;
      await this.#runTurn(member, pick);
      this.#throwFailure();
    }
  }

  async #runProcess(who: number, turns: number): Promise<void> {
    for (let turn = 0; turn < turns; turn += 1) {
      const member = this.#members[who];
      if (!member || member.stopped) return;
      await this.#runTurn(member, () => 0);
      this.#throwFailure();
    }
  }

  /** Runs one task of a process and everything that follows from it without a wait. */
  async #runTurn(member: Member, pick: (below: number) => number): Promise<void> {
    const tasks = member.process.kernel.tasks();
    const task = tasks[pick(tasks.length)];
    if (!task) return;
    const result = this.#runAs(member, task.run);
    if (result instanceof Promise) result.catch((error: unknown) => this.#handleError(member.process, error));
    await drainPromises();
    this.#reapDead();
    if (this.#isNewlyConfirmed) this.#cutAfterConfirmation();
  }

  /**
   * Checks the crash state of a power cut right after a confirmation, with only flushed data. A confirmation
   * that came too early shows best here.
   */
  #cutAfterConfirmation(): void {
    this.#isNewlyConfirmed = false;
    this.crashes += 1;
    try {
      checkCrashState(this.#machine.afterPowerCut(0), this.model, true, NO_SECOND_CRASH);
    } catch (error) {
      this.#log('the power is cut, and all that was not flushed is gone');
      this.#failure ??= error;
    }
  }

  #take(worker: Worker | undefined, count: number): void {
    if (!worker) return;
    const taken = this.#runAs(worker, () => worker.queue.take({ ...TAKE_EVERYTHING, count }));
    for (const locked of taken ?? []) {
      const id = this.model.take(locked.body, worker.process.name);
      this.#log(`${worker.process.name} delivers m${id}`);
      worker.held.push({ id, locked });
    }
  }

  #consume(worker: Worker | undefined): void {
    if (!worker || worker.held.length === 0) return;
    const done = worker.held.splice(0);
    for (const { id } of done) this.model.beginConsume(id);
    this.#runAs(worker, () => worker.queue.consume(done.map(({ locked }) => locked)));
    if (!worker.process.lifetime.alive) return;
    const moment = this.#machine.nextMoment();
    for (const { id } of done) this.model.endConsume(id, moment);
    this.#log(`${done.map(({ id }) => `m${id}`).join(', ')} consumed`);
  }

  #unlock(worker: Worker | undefined): void {
    if (!worker || worker.held.length === 0) return;
    const held = worker.held.splice(0);
    // Update the model first: from the unlock on, other workers may take the messages.
    for (const { id } of held) this.model.unlock(id);
    this.#runAs(worker, () =>
      worker.queue.unlock(
        held.map(({ locked }) => locked),
        'failed',
      ),
    );
  }

  #loseIndex({ how, seed }: Extract<Operation, { do: 'lose-index' }>): void {
    this.#endAll();
    this.crashes += 1;
    this.#log(`the power is cut, and ${how === 'zeroed' ? 'a sector of ' : ''}the index is ${how}`);
    const left = this.#machine.afterPowerCut(seed % 3);
    left.damage(INDEX_PATH, how, createPick(seed));
    this.model.indexDamaged();
    checkCrashState(left.copy(), this.model, true, NO_SECOND_CRASH);
    this.#machine = this.#attach(left);
    this.#startAll(seed % (HELPER_INDEX + 1));
    this.#afterRestore();
  }

  #endAll(): void {
    for (const member of this.#members) member?.process.terminate();
    for (const member of this.#members) {
      if (member?.kind === 'worker') this.model.workerDied(member.process.name, [...member.unanswered]);
    }
    this.#members.length = 0;
    this.#machine.failingSyncs = 0;
  }

  /** Checks crash states of this moment one by one. The run continues from the last one. */
  #crash({ power, seed, states, again }: Extract<Operation, { do: 'crash' }>): void {
    this.#endAll();
    const left = (n: number): SimMachine =>
      power ? this.#machine.afterPowerCut(n < 3 ? n : seed + n) : this.#machine.copy();
    const number = power ? states : 1;
    for (let n = 0; n < number; n += 1) {
      const state = power ? (seed + n) % 5 : 0;
      const afterSteps = n === 0 ? again : 0;
      this.crashes += afterSteps > 0 ? 2 : 1;
      this.#log(
        power ? `the power is cut (state ${state < 3 ? state : seed + n})` : 'all processes are killed',
      );
      checkCrashState(left(state < 3 ? state : seed + n), this.model, power, {
        afterSteps,
        powerSeed: again % 2 === 0 ? undefined : again,
      });
    }
    const last = (seed + number - 1) % 5;
    this.#machine = this.#attach(left(last < 3 ? last : seed + number - 1));
    if (power) this.model.powerCut();
    this.#startAll(seed % (HELPER_INDEX + 1));
    this.#afterRestore();
  }

  /** Checks the restored queue with which the run continues, and updates the model. */
  #afterRestore(): void {
    this.#throwFailure();
    const probe = this.#members.find((member) => member?.kind === 'worker');
    if (probe?.kind !== 'worker') return;
    const taken = probe.queue.take(TAKE_EVERYTHING);
    const present = new Set(taken.map(({ body }) => this.model.identify(body)));
    probe.queue.unlock(taken, 'none');
    this.model.check(present);
    this.model.restored(present);
  }

  /**
   * Ends all faults, lets the processes answer every submit, and checks that every waiting message is delivered.
   * @param untilIndexSynced whether to continue until an index sync covers every consumption
   * @throws Violation
   */
  async #settle(untilIndexSynced = false): Promise<void> {
    this.#machine.failingSyncs = 0;
    for (const member of this.#members) {
      if (member) member.stopped = false;
      member?.process.lifetime.clearInterruption();
    }
    for (let turns = 0; turns < MAX_SETTLING_TURNS; turns += 1) {
      this.#startAll(0);
      this.#throwFailure();
      const workers = this.#members.filter((member) => member?.kind === 'worker');
      const answered =
        workers.length === WORKER_COUNT && workers.every(({ unanswered }) => unanswered.size === 0);
      if (answered && !(untilIndexSynced && this.model.unvouched() !== undefined)) break;
      for (const member of [...this.#members]) {
        for (let task = 0; task < SETTLING_TASKS_PER_TURN && member?.process.lifetime.alive; task += 1) {
          await this.#runTurn(member, () => 0);
        }
      }
      this.#throwFailure();
      this.#machine.nowMs += SETTLING_TURN_MS;
    }
    const unsynced = untilIndexSynced ? this.model.unvouched() : undefined;
    if (unsynced !== undefined)
      throw new Violation('PP-2', `m${unsynced} was consumed, and no index sync ever notes it`);
    for (let who = 0; who < WORKER_COUNT; who += 1) this.#unlock(this.#worker(who));
    const waiting = this.model.waiting();
    const worker = this.#members.find((member) => member?.kind === 'worker');
    if (worker?.kind !== 'worker') return;
    const before = worker.held.length;
    this.#take(worker, TAKE_EVERYTHING.count);
    if (!worker.process.lifetime.alive) return;
    const taken = new Set(worker.held.slice(before).map(({ id }) => id));
    const stuck = waiting.find((id) => !taken.has(id));
    if (stuck !== undefined) {
      throw new Violation('PP-1', `m${stuck} was confirmed, no worker holds it, and it is never delivered`);
    }
    this.#unlock(worker);
    verifyMachine(this.#machine);
  }
}

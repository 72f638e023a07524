import { runHelper } from '../helper/helper.js';
import { LOCK } from '../platform/locks.js';
import { OpenQueue } from '../queue/open.js';
import type { Locked } from '../queue/types.js';
import { checkCrashState, UNDISTURBED } from './crash-state.js';
import { Killed } from './life.js';
import type { Machine } from './machine.js';
import { picks } from './medium.js';
import { Model, Violation } from './model.js';
import { HELPER, type Interruption, type Operation, WORKERS } from './operations.js';
import { INDEX_PATH, SimProcess, settings, verifyMachine } from './site.js';

/** Turns and simulated milliseconds after which a queue that is left alone has answered everything. */
const MOST_SETTLING_TURNS = 600;
const SETTLING_MS = 10;
const SETTLING_TASKS = 3;
const EVERYTHING = { count: 1000, bytes: 2 ** 30, due: () => true };

interface Worker {
  kind: 'worker';
  process: SimProcess;
  queue: OpenQueue;
  stopped: boolean;
  held: { id: number; locked: Locked }[];
  unanswered: Set<number>;
}

interface Helper {
  kind: 'helper';
  process: SimProcess;
  stopped: boolean;
}

type Member = Worker | Helper;

/** All promises that are due have run. */
const drained = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/**
 * One run: a machine, the queue's processes on it, and what the world outside knows. Every operation is done by the
 * queue's own code.
 */
export class World {
  /** Crash states that were restored and held against the model, and processes that were killed. */
  crashes = 0;
  readonly model = new Model();
  #machine: Machine;
  readonly #tell: (line: string) => void;
  readonly #members: (Member | undefined)[] = [];
  #failure: unknown;
  /** Was something confirmed that no power cut has followed yet? */
  #isNewlyConfirmed = false;
  #births = 0;
  /** Is somebody between two steps of somebody else? */
  #isInBetween = false;

  /** @param tell is told what happens, for the story. */
  constructor(installed: Machine, tell: (line: string) => void = () => undefined) {
    this.#tell = tell;
    this.#machine = this.#boot(installed.copy());
  }

  #boot(machine: Machine): Machine {
    machine.tell = this.#tell;
    machine.onSynced = (file, since) => {
      if (file === machine.file(INDEX_PATH)) this.model.vouch(since);
    };
    return machine;
  }

  /** Does everything in order. @throws Violation, or what a process of the queue died of by itself. */
  async run(operations: readonly Operation[]): Promise<void> {
    this.#startAll(0);
    for (const operation of operations) {
      await this.#do(operation);
      this.#throwFailure();
    }
    await this.#settle(true);
    await this.#do({ do: 'crash', power: true, seed: operations.length, states: 2, again: 0 });
    await this.#settle();
  }

  #throwFailure(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  async #do(operation: Operation): Promise<void> {
    switch (operation.do) {
      case 'submit':
        return this.#submit(this.#worker(operation.worker), operation.sizes);
      case 'run':
        return this.#run(operation.turns, operation.order);
      case 'go':
        return this.#go(operation.who, operation.turns);
      case 'consume':
        return this.#consume(this.#worker(operation.worker));
      case 'turn':
      case 'take':
      case 'deliver':
      case 'unlock':
      case 'write-back':
        return this.#doAtOnce(operation);
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

  #doAtOnce(operation: Interruption): void {
    if (operation.do === 'write-back') this.#machine.writeBack(picks(operation.pages));
    else if (operation.do === 'turn') this.#task(this.#worker(operation.worker));
    else if (operation.do === 'unlock') this.#unlock(this.#worker(operation.worker));
    else this.#take(this.#worker(operation.worker), operation.count);
    if (operation.do === 'deliver') this.#consume(this.#worker(operation.worker));
  }

  /** Only where nobody waits: a process that is interrupted with the mutex would make the other one wait for ever. */
  #interrupt({ who, afterSteps, by }: Extract<Operation, { do: 'interrupt' }>): void {
    const member = this.#members[who];
    if (!member || (by.do !== 'write-back' && by.worker === who)) return;
    const machine = this.#machine;
    member.process.life.interruptIn(afterSteps, () => {
      if (machine !== this.#machine) return true;
      // Of a process that is itself between two steps nothing else can be done.
      if (this.#isInBetween || machine.isLocked([LOCK.mutex, LOCK.opening])) return false;
      this.#tell(`in between two steps of ${member.process.name}:`);
      this.#isInBetween = true;
      try {
        this.#doAtOnce(by);
      } finally {
        this.#isInBetween = false;
      }
      return true;
    });
  }

  /** The first task of a process, without what it does after the first thing that it waits for. */
  #task(member: Member | undefined): void {
    const task = member?.process.kernel.tasks()[0];
    if (!member || !task) return;
    this.#tell(`${member.process.name} does its next ${task.what}`);
    const result = this.#as(member, task.run);
    if (result instanceof Promise) result.catch((error: unknown) => this.#caught(member.process, error));
  }

  #worker(who: number): Worker | undefined {
    const member = this.#members[who];
    return member?.kind === 'worker' && !member.stopped ? member : undefined;
  }

  /** Runs code of a process; a kill ends it here, anything else it throws is a failure of the queue. */
  #as<T>(member: { process: SimProcess }, code: () => T): T | undefined {
    try {
      return code();
    } catch (error) {
      this.#caught(member.process, error);
      return undefined;
    } finally {
      this.#bury();
    }
  }

  #caught({ name, life }: SimProcess, error: unknown): void {
    if (error instanceof Killed) return;
    if (error instanceof Violation) this.#failure ??= error;
    else if (
      (error as { code?: string }).code === 'sync-failed' ||
      (error as { code?: string }).code === 'EIO'
    ) {
      // A restore whose disk fails gives up; whoever started the process starts it again.
      life.alive = false;
    } else this.#failure ??= new Violation('PP-10', `${name} fails: ${(error as Error).stack}`);
  }

  /** Members whose life has ended go. */
  #bury(): void {
    for (const [who, member] of this.#members.entries()) {
      if (!member || member.process.life.alive) continue;
      this.#members[who] = undefined;
      this.#tell(`${member.process.name} is killed`);
      this.crashes += 1;
      member.process.end();
      if (member.kind === 'worker') this.model.died(member.process.name, [...member.unanswered]);
    }
  }

  #startAll(first: number): void {
    for (let n = 0; n <= HELPER; n += 1) this.#start((first + n) % (HELPER + 1));
  }

  #start(who: number): void {
    const there = this.#members[who];
    if (there) {
      there.stopped = false;
      return;
    }
    this.#births += 1;
    if (who === HELPER) this.#startHelper();
    else this.#startWorker(who);
  }

  #startWorker(who: number): void {
    const process = new SimProcess(this.#machine, `worker ${who}.${this.#births}`);
    this.#tell(`${process.name} starts`);
    const queue = this.#as({ process }, () => new OpenQueue(settings, process.ground));
    if (!queue) {
      process.end();
      return;
    }
    this.#members[who] = { kind: 'worker', process, queue, stopped: false, held: [], unanswered: new Set() };
  }

  #startHelper(): void {
    const process = new SimProcess(this.#machine, `helper.${this.#births}`);
    this.#tell(`${process.name} starts`);
    const never = new AbortController();
    this.#members[HELPER] = { kind: 'helper', process, stopped: false };
    runHelper(settings, 0, never.signal, () => undefined, process.ground).catch((error: unknown) => {
      this.#caught(process, error);
      process.life.alive = false;
    });
    this.#bury();
  }

  #stop(who: number): void {
    const member = this.#members[who];
    if (member) member.stopped = true;
  }

  #kill(who: number, afterSteps: number): void {
    const member = this.#members[who];
    if (!member) return;
    if (afterSteps === 0) member.process.life.alive = false;
    else member.process.life.dieIn(afterSteps);
    this.#bury();
  }

  #submit(worker: Worker | undefined, sizes: readonly number[]): void {
    if (!worker) return;
    const messages = sizes.map((sizeBytes) => this.model.submit(sizeBytes));
    const ids = messages.map(({ id }) => id);
    const names = ids.map((id) => `m${id}`).join(', ');
    const { process, queue, unanswered } = worker;
    for (const id of ids) unanswered.add(id);
    this.#tell(`${process.name} is given ${names} (${sizes.join(', ')} bytes)`);
    queue.enqueue(messages.map(({ body }) => body)).then(
      (outcome) => {
        if (!process.life.alive) return;
        for (const id of ids) unanswered.delete(id);
        this.#tell(`${process.name} says ${outcome.outcome} of ${names}`);
        this.model.answer(ids, outcome);
        this.#isNewlyConfirmed ||= outcome.outcome === 'confirmed';
      },
      (error: unknown) => this.#caught(process, error),
    );
  }

  async #run(turns: number, order: number): Promise<void> {
    const pick = picks(order);
    for (let turn = 0; turn < turns; turn += 1) {
      const ready = this.#members.filter(
        (member) => member && !member.stopped && member.process.kernel.tasks().length > 0,
      );
      const member = ready[pick(ready.length)];
      if (!member) return;
      await this.#turn(member, pick);
      this.#throwFailure();
    }
  }

  async #go(who: number, turns: number): Promise<void> {
    for (let turn = 0; turn < turns; turn += 1) {
      const member = this.#members[who];
      if (!member || member.stopped) return;
      await this.#turn(member, () => 0);
      this.#throwFailure();
    }
  }

  /** One task of a process, and all that it can do without waiting for anything. */
  async #turn(member: Member, pick: (below: number) => number): Promise<void> {
    const tasks = member.process.kernel.tasks();
    const task = tasks[pick(tasks.length)];
    if (!task) return;
    const result = this.#as(member, task.run);
    if (result instanceof Promise) result.catch((error: unknown) => this.#caught(member.process, error));
    await drained();
    this.#bury();
    if (this.#isNewlyConfirmed) this.#cutAfterConfirmation();
  }

  /** The worst moment for a confirmation to be early: the power goes as soon as it is said, and nothing more is flushed. */
  #cutAfterConfirmation(): void {
    this.#isNewlyConfirmed = false;
    this.crashes += 1;
    try {
      checkCrashState(this.#machine.afterCut(0), this.model, true, UNDISTURBED);
    } catch (error) {
      this.#tell('the power is cut, and all that was not flushed is gone');
      this.#failure ??= error;
    }
  }

  #take(worker: Worker | undefined, count: number): void {
    if (!worker) return;
    const taken = this.#as(worker, () => worker.queue.take({ ...EVERYTHING, count }));
    for (const locked of taken ?? []) {
      const id = this.model.take(locked.body, worker.process.name);
      this.#tell(`${worker.process.name} delivers m${id}`);
      worker.held.push({ id, locked });
    }
  }

  #consume(worker: Worker | undefined): void {
    if (!worker || worker.held.length === 0) return;
    const done = worker.held.splice(0);
    for (const { id } of done) this.model.consuming(id);
    this.#as(worker, () => worker.queue.consume(done.map(({ locked }) => locked)));
    if (!worker.process.life.alive) return;
    const moment = this.#machine.moment();
    for (const { id } of done) this.model.consumed(id, moment);
    this.#tell(`${done.map(({ id }) => `m${id}`).join(', ')} consumed`);
  }

  #unlock(worker: Worker | undefined): void {
    if (!worker || worker.held.length === 0) return;
    const held = worker.held.splice(0);
    // From here on others may have them.
    for (const { id } of held) this.model.unlock(id);
    this.#as(worker, () =>
      worker.queue.unlock(
        held.map(({ locked }) => locked),
        true,
      ),
    );
  }

  #loseIndex({ how, seed }: Extract<Operation, { do: 'lose-index' }>): void {
    this.#endAll();
    this.crashes += 1;
    this.#tell(`the power is cut, and ${how === 'zeroed' ? 'a sector of ' : ''}the index is ${how}`);
    const left = this.#machine.afterCut(seed % 3);
    left.damage(INDEX_PATH, how, picks(seed));
    this.model.indexDamaged();
    checkCrashState(left.copy(), this.model, true, UNDISTURBED);
    this.#machine = this.#boot(left);
    this.#startAll(seed % (HELPER + 1));
    this.#afterRestore();
  }

  #endAll(): void {
    for (const member of this.#members) member?.process.end();
    for (const member of this.#members) {
      if (member?.kind === 'worker') this.model.died(member.process.name, [...member.unanswered]);
    }
    this.#members.length = 0;
    this.#machine.failingSyncs = 0;
  }

  /** Crash states of this moment are checked one by one; the run goes on from the last. */
  #crash({ power, seed, states, again }: Extract<Operation, { do: 'crash' }>): void {
    this.#endAll();
    const left = (n: number): Machine =>
      power ? this.#machine.afterCut(n < 3 ? n : seed + n) : this.#machine.copy();
    const number = power ? states : 1;
    for (let n = 0; n < number; n += 1) {
      const state = power ? (seed + n) % 5 : 0;
      const afterSteps = n === 0 ? again : 0;
      this.crashes += afterSteps > 0 ? 2 : 1;
      this.#tell(
        power ? `the power is cut (state ${state < 3 ? state : seed + n})` : 'all processes are killed',
      );
      checkCrashState(left(state < 3 ? state : seed + n), this.model, power, {
        afterSteps,
        powerSeed: again % 2 === 0 ? undefined : again,
      });
    }
    const last = (seed + number - 1) % 5;
    this.#machine = this.#boot(left(last < 3 ? last : seed + number - 1));
    if (power) this.model.powerCut();
    this.#startAll(seed % (HELPER + 1));
    this.#afterRestore();
  }

  /** What is in the queue that has just been restored in earnest. */
  #afterRestore(): void {
    this.#throwFailure();
    const probe = this.#members.find((member) => member?.kind === 'worker');
    if (probe?.kind !== 'worker') return;
    const taken = probe.queue.take(EVERYTHING);
    const present = new Set(taken.map(({ body }) => this.model.recognise(body)));
    probe.queue.unlock(taken, false);
    this.model.check(present);
    this.model.restored(present);
  }

  /** @param noted whether it takes as long as it takes until an index sync vouches for all that was consumed. */
  async #settle(noted = false): Promise<void> {
    this.#machine.failingSyncs = 0;
    for (const member of this.#members) {
      if (member) member.stopped = false;
      member?.process.life.uninterrupted();
    }
    for (let turns = 0; turns < MOST_SETTLING_TURNS; turns += 1) {
      this.#startAll(0);
      this.#throwFailure();
      const workers = this.#members.filter((member) => member?.kind === 'worker');
      const answered = workers.length === WORKERS && workers.every(({ unanswered }) => unanswered.size === 0);
      if (answered && !(noted && this.model.unvouched() !== undefined)) break;
      for (const member of [...this.#members]) {
        for (let task = 0; task < SETTLING_TASKS && member?.process.life.alive; task += 1) {
          await this.#turn(member, () => 0);
        }
      }
      this.#throwFailure();
      this.#machine.nowMs += SETTLING_MS;
    }
    const unnoted = noted ? this.model.unvouched() : undefined;
    if (unnoted !== undefined)
      throw new Violation('PP-2', `m${unnoted} was consumed, and no index sync ever notes it`);
    for (let who = 0; who < WORKERS; who += 1) this.#unlock(this.#worker(who));
    const waiting = this.model.waiting();
    const worker = this.#members.find((member) => member?.kind === 'worker');
    if (worker?.kind !== 'worker') return;
    const before = worker.held.length;
    this.#take(worker, EVERYTHING.count);
    if (!worker.process.life.alive) return;
    const taken = new Set(worker.held.slice(before).map(({ id }) => id));
    const stuck = waiting.find((id) => !taken.has(id));
    if (stuck !== undefined) {
      throw new Violation('PP-1', `m${stuck} was confirmed, is with nobody, and is never delivered`);
    }
    this.#unlock(worker);
    verifyMachine(this.#machine);
  }
}

import { SimMachine } from '../../common/simulation/machine.js';
import { SimProcess } from '../../common/simulation/sim-process.js';
import { Violation } from '../../common/simulation/violation.js';
import { MESSAGE_OVERHEAD_BYTES } from '../memory/memory-queue.js';
import { CheckpointedQueue } from '../queue/checkpointed-queue.js';
import { installQueue } from '../queue/install.js';
import { pathsOf } from '../settings.js';
import type { FoundQueue } from './model.js';
import { DEFAULT_QUEUES } from './operations.js';
import { SimHost, type SimWriter } from './sim-host.js';

/** Directory of the simulated queue. */
export const DIRECTORY = '/queue';
/** Size of a segment: the smallest. The ring has few of them, so it wraps around within a short run. */
const SEGMENT_BYTES = 4096;
const SEGMENTS = 5;
/** Upper bound of the memory of the messages: some large messages or some tens of small ones fill it. */
const MEMORY_BYTES = 24 * (MESSAGE_OVERHEAD_BYTES + 400);
const CHECKPOINT_MS = 50;
/** Upper bound of the turns within which an undisturbed recovery is over. */
const MAX_RECOVERY_TURNS = 2000;

/** Path of the control file of the simulated queue. */
export const CONTROL_PATH = pathsOf(DIRECTORY).control;

/** Resolves when all pending promise callbacks have run. */
export const drainPromises = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Creates a machine and installs a queue on it. All files are on the medium. */
export async function installMachine(): Promise<SimMachine> {
  const machine = new SimMachine(() => 0);
  machine.changeNames({ change: 'add', path: '/', node: { kind: 'directory' } });
  const installer = new SimProcess(machine, 'installer');
  const options = { segmentBytes: SEGMENT_BYTES, segments: SEGMENTS, queues: DEFAULT_QUEUES.length };
  const installed = installQueue(DIRECTORY, options, installer.kernel);
  let isOver = false;
  const over = installed.finally(() => {
    isOver = true;
  });
  over.catch(() => undefined);
  while (!isOver) {
    installer.kernel.tasks()[0]?.run();
    await drainPromises();
  }
  await over;
  installer.terminate();
  machine.syncNames('/');
  return machine;
}

/** A simulated server process with its writer processes. */
export class SimulatedServer {
  readonly process: SimProcess;
  readonly host: SimHost;
  /** The open queue. It is undefined until its recovery is over. */
  queue: CheckpointedQueue | undefined;
  /** Why the recovery failed, or the queue after it. */
  failure: unknown;

  /** @param onReady is called once when the recovery is over. */
  constructor(
    machine: SimMachine,
    name: string,
    onReady: (queue: CheckpointedQueue) => void = () => undefined,
  ) {
    this.process = new SimProcess(machine, name);
    this.host = new SimHost(machine, this.process);
    const run = { checkpointMs: CHECKPOINT_MS, memoryBytes: MEMORY_BYTES };
    CheckpointedQueue.open(DIRECTORY, run, this.host)
      .then((queue) => {
        if (!this.process.lifetime.alive) return;
        this.queue = queue;
        queue.failure.catch((error: unknown) => this.fail(error));
        onReady(queue);
      })
      .catch((error: unknown) => this.fail(error));
  }

  /** Records that the queue has failed. Its process ends. */
  fail(error: unknown): void {
    if (this.process.lifetime.alive) this.failure ??= error;
    this.process.lifetime.alive = false;
  }

  get writers(): readonly SimWriter[] {
    return this.host.writers;
  }

  /** Runs one task of the server or else of a writer process. @returns false when there is none */
  runTask(): boolean {
    const running = [
      this.process,
      ...this.host.writers.filter(({ hasEnded }) => !hasEnded).map(({ process }) => process),
    ];
    for (const process of running) {
      const [task] = process.kernel.tasks();
      if (!task) continue;
      try {
        const result = task.run();
        if (result instanceof Promise) result.catch((error: unknown) => this.fail(error));
      } catch (error) {
        this.fail(error);
      }
      return true;
    }
    return false;
  }

  /** Ends the server and its writer processes. */
  terminate(): void {
    this.process.terminate();
    for (const writer of this.host.writers) writer.process.terminate();
  }
}

/** Returns what an open queue contains. */
export const contentsOf = (queue: CheckpointedQueue): FoundQueue[] =>
  queue.contents().map(({ definition, messages }) => ({
    name: definition.name,
    order: definition.order,
    messages: messages.map(({ id, body }) => ({ id, body })),
  }));

/**
 * Recovers the queue of a machine on which no process runs.
 * @param killAfterSteps number of steps after which the first attempt is killed; 0: no kill
 * @param powerCutSeed seed of a power cut that follows the kill; undefined: no power cut
 * @throws Violation PP-10 when the recovery fails without a kill
 */
export async function recover(
  machine: SimMachine,
  killAfterSteps: number,
  powerCutSeed: number | undefined,
): Promise<{ machine: SimMachine; found: FoundQueue[]; server: SimulatedServer }> {
  const server = new SimulatedServer(machine, 'recovery');
  const { lifetime } = server.process;
  if (killAfterSteps > 0) lifetime.killAfter(killAfterSteps);
  for (let turns = 0; server.queue === undefined && lifetime.alive; turns += 1) {
    await drainPromises();
    if (server.queue !== undefined || !lifetime.alive) break;
    if (turns > MAX_RECOVERY_TURNS || !server.runTask())
      throw new Violation('PP-10', `the recovery waits for nothing after ${turns} turns`);
  }
  if (server.queue !== undefined && lifetime.alive)
    return { machine, found: contentsOf(server.queue), server };
  server.terminate();
  if (server.failure !== undefined)
    throw new Violation('PP-10', `the recovery fails: ${textOf(server.failure)}`);
  return recover(powerCutSeed === undefined ? machine : machine.afterPowerCut(powerCutSeed), 0, undefined);
}

/** Returns the text of an error with its place. */
export const textOf = (error: unknown): string => (error instanceof Error ? `${error.stack}` : String(error));

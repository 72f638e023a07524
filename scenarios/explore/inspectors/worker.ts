import { messageOf } from '../../../conformance/errors.js';
import { openRecording } from '../../../faults/crash-states/materialise.js';
import { parseState } from '../../../faults/write-log/state.js';
import type { Inspection } from './inspection.js';
import {
  MountInspector,
  type MountPlan,
  RestoreClient,
  type RestoreTimeouts,
  type TimedOut,
} from './mount-inspector.js';
import { RestoreService } from './restore-service.js';

/** Everything that a worker process needs to inspect crash states of one recording. */
export interface WorkerPlan extends RestoreTimeouts {
  /** Path of the log of writes. */
  log: string;
  /** Number of log entries that are used. Later entries are ignored. */
  end: number;
  /**
   * Path of an image of the recorded disk on which the first `baseAt` writes and flushes of the log are done.
   */
  base: string;
  baseAt: number;
  /** Command of the target's restore program. */
  restore: readonly string[];
  /** Environment variables that mark the restore program as part of this run. */
  env: Readonly<Record<string, string>>;
  /** SHA-256 of the messages, in the order of the messages' bits in an inspection. */
  digests: readonly string[];
  mount: MountPlan;
}

/** A message to a worker process. Each is answered by one `FromWorker` message. */
export type ToWorker =
  | { plan: WorkerPlan }
  /** States to inspect, each with its address and its job number. */
  | { batch: readonly { number: number; state: string }[] }
  /** Request to close the disk and to wait for another plan. */
  | { release: true };
/** A message from a worker process. */
export type FromWorker =
  | { ready: true }
  | { inspections: (Inspection & { number: number })[]; timedOut: (TimedOut & { number: number })[] }
  | { failed: string; code: string };

/**
 * Runs the worker process: inspects the states that the parent sends, until the parent disconnects or ends.
 */
function main(): void {
  let service: RestoreService | undefined;
  let inspector: Inspector | undefined;
  const send = (message: FromWorker) => void process.send?.(message);
  const handle = async (message: ToWorker): Promise<FromWorker> => {
    if ('plan' in message) {
      // Start the restore program only once: it is the same for all plans of a run.
      service ??= new RestoreService(message.plan.restore, message.plan.env);
      inspector = createInspector(message.plan, service);
      return { ready: true };
    }
    if ('release' in message) {
      inspector?.close();
      inspector = undefined;
      return { ready: true };
    }
    if (inspector === undefined) throw new Error('a batch came before the plan');
    const inspections: (Inspection & { number: number })[] = [];
    const timedOut: (TimedOut & { number: number })[] = [];
    const results = await inspector.inspect(message.batch.map(({ state }) => parseState(state)));
    for (const [index, { number }] of message.batch.entries()) {
      const result = results[index] ?? { hung: false };
      if ('hung' in result) timedOut.push({ number, ...result });
      else inspections.push({ number, ...result });
    }
    return { inspections, timedOut };
  };
  // Handle one message after the other: there is only one disk and one restore program.
  let last = Promise.resolve();
  process.on('message', (message: ToWorker) => {
    last = last.then(() =>
      handle(message).then(send, (error: unknown) => {
        const code = error instanceof Error && 'code' in error ? String(error.code) : 'kit-failed';
        send({ failed: messageOf(error), code });
      }),
    );
  });
  process.on('disconnect', () => {
    // End the restore program first: it and its children would keep the disk busy.
    service?.end();
    inspector?.close();
    process.exit(0);
  });
  // Ignore a Ctrl-C of the terminal. The parent handles it, and ends the workers after they have closed
  // their disks.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => {});
}

type Inspector = Pick<MountInspector, 'inspect' | 'close'>;

/** Opens the recording and the disk of a plan. */
function createInspector(plan: WorkerPlan, service: RestoreService): Inspector {
  const { mount, base, baseAt } = plan;
  const recording = openRecording(plan.log, plan.end);
  const client = new RestoreClient(service, plan, plan.digests);
  const inspector = new MountInspector(mount, recording, base, baseAt, client);
  return {
    inspect: (states) => inspector.inspect(states),
    close() {
      inspector.close();
      recording.close();
    },
  };
}

main();

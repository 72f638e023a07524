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

/** All that a worker process needs to look at crash states of one recording. */
export interface WorkerPlan extends RestoreTimeouts {
  log: string;
  end: number;
  base: string;
  baseAt: number;
  restore: readonly string[];
  env: Readonly<Record<string, string>>;
  /** SHA-256 of the messages, in the order of their bits. */
  digests: readonly string[];
  mount: MountPlan;
}

export type ToWorker =
  | { plan: WorkerPlan }
  | { batch: readonly { number: number; state: string }[] }
  /** It lets go of its disk, and waits for another plan. */
  | { release: true };
export type FromWorker =
  | { ready: true }
  | { inspections: (Inspection & { number: number })[]; timedOut: (TimedOut & { number: number })[] }
  | { failed: string; code: string };

/** A process of its own: looks at the states that its parent sends, and ends with its parent. */
function main(): void {
  let service: RestoreService | undefined;
  let inspector: Inspector | undefined;
  const send = (message: FromWorker) => void process.send?.(message);
  const handle = async (message: ToWorker): Promise<FromWorker> => {
    if ('plan' in message) {
      // The same for all plans of a run.
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
  // One after the other: there is one disk, and one program that restores.
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
    // What it has started would keep the disk busy.
    service?.end();
    inspector?.close();
    process.exit(0);
  });
  // A Ctrl-C of the terminal is the parent's to handle: it ends the workers when they have let go of their disks.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => {});
}

type Inspector = Pick<MountInspector, 'inspect' | 'close'>;

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

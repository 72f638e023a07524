import { messageOf } from '../../../conformance/errors.js';
import { openRecording } from '../../../faults/crash-states/materialise.js';
import { parseState } from '../../../faults/write-log/state.js';
import type { Found } from './found.js';
import {
  Asker,
  ImageLooker,
  type ImagePlan,
  type Late,
  type Looker,
  MountLooker,
  type MountPlan,
  type Waiting,
} from './lookers.js';
import { RestoreService } from './restore-service.js';

/** All that a worker process needs to look at crash states of one recording. */
export interface WorkerPlan extends Waiting {
  log: string;
  end: number;
  base: string;
  baseAt: number;
  restore: readonly string[];
  env: Readonly<Record<string, string>>;
  /** SHA-256 of the messages, in the order of their bits. */
  digests: readonly string[];
  way: ImagePlan | MountPlan;
}

export type ToWorker =
  | { plan: WorkerPlan }
  | { batch: readonly { number: number; state: string }[] }
  /** It lets go of its disk, and waits for another plan. */
  | { rest: true };
export type FromWorker =
  | { ready: true }
  | { found: (Found & { number: number })[]; late: (Late & { number: number })[] }
  | { failed: string; code: string };

/** A process of its own: looks at the states that its parent sends, and ends with its parent. */
function main(): void {
  let service: RestoreService | undefined;
  let looker: Looker | undefined;
  const send = (message: FromWorker) => void process.send?.(message);
  const obey = async (message: ToWorker): Promise<FromWorker> => {
    if ('plan' in message) {
      // The same for all plans of a run.
      service ??= new RestoreService(message.plan.restore, message.plan.env);
      looker = lookerOf(message.plan, service);
      return { ready: true };
    }
    if ('rest' in message) {
      looker?.close();
      looker = undefined;
      return { ready: true };
    }
    if (looker === undefined) throw new Error('a batch came before the plan');
    const found: (Found & { number: number })[] = [];
    const late: (Late & { number: number })[] = [];
    const seen = await looker.look(message.batch.map(({ state }) => parseState(state)));
    for (const [place, { number }] of message.batch.entries()) {
      const what = seen[place] ?? { hung: false };
      if ('hung' in what) late.push({ number, ...what });
      else found.push({ number, ...what });
    }
    return { found, late };
  };
  // One after the other: there is one disk, and one program that restores.
  let last = Promise.resolve();
  process.on('message', (message: ToWorker) => {
    last = last.then(() =>
      obey(message).then(send, (error: unknown) => {
        const code = error instanceof Error && 'code' in error ? String(error.code) : 'kit-failed';
        send({ failed: messageOf(error), code });
      }),
    );
  });
  process.on('disconnect', () => {
    // What it has started would keep the disk busy.
    service?.end();
    looker?.close();
    process.exit(0);
  });
  // A Ctrl-C of the terminal is the parent's to handle: it ends the workers when they have let go of their disks.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => {});
}

function lookerOf(plan: WorkerPlan, service: RestoreService): Looker {
  const { way, base, baseAt } = plan;
  const recording = openRecording(plan.log, plan.end);
  const asker = new Asker(service, plan, plan.digests);
  const looker =
    way.name === 'image'
      ? new ImageLooker(way, recording, base, baseAt, asker)
      : new MountLooker(way, recording, base, baseAt, asker);
  return {
    look: (states) => looker.look(states),
    close() {
      looker.close();
      recording.close();
    },
  };
}

main();

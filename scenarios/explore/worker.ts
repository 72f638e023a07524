import { join } from 'node:path';
import { messageOf } from '../../conformance/errors.js';
import { FileBytes } from '../../faults/crash-states/file-bytes.js';
import { openRecording, type Recording } from '../../faults/crash-states/materialise.js';
import { type CrashState, parseState } from '../../faults/crash-states/state.js';
import { StateDisk } from '../../faults/crash-states/state-disk.js';
import type { Filesystem } from '../../faults/power/filesystem.js';
import type { Extent } from '../../faults/power/syscalls.js';
import { type Found, foundOf, notRecovered, unmountable } from './found.js';
import { type Changed, type Paths, RestoreService } from './restore-service.js';

/** A wait that the end of the time cut short shows a hang if it was so long, and so many times the longest other one. */
const LEAST_HUNG_MS = 1000;
const FAR_MORE = 5;

/** All that a worker process needs to look at crash states of one recording. */
export interface WorkerPlan {
  log: string;
  end: number;
  base: string;
  baseAt: number;
  restore: readonly string[];
  env: Readonly<Record<string, string>>;
  /** So long the program may take for one state. */
  patienceMs: number;
  /** When no answer is waited for any more, in milliseconds since the epoch. */
  untilMs: number;
  /** SHA-256 of the messages, in the order of their bits. */
  digests: readonly string[];
  way:
    | {
        name: 'image';
        files: readonly { name: string; extents: Extent[]; sizeBytes: number; path: string }[];
      }
    | {
        name: 'mount';
        stable: string;
        image: string;
        device: string;
        mountPoint: string;
        filesystem: Filesystem;
        /** Directory to be restored, below the mount. */
        queue: string;
      };
}

export type ToWorker = { plan: WorkerPlan } | { batch: readonly { number: number; state: string }[] };
export type FromWorker =
  | { ready: true }
  | { found: (Found & { number: number })[]; late: (Late & { number: number })[] }
  | { failed: string; code: string };

/** There was no time to look at a state; `hung`: it had been given far more than any other. */
export interface Late {
  hung: boolean;
}

interface Looker {
  look(state: CrashState): Promise<Found | Late>;
  close(): void;
}

/** A process of its own: looks at the states that its parent sends, and ends with its parent. */
function main(): void {
  let looker: Looker | undefined;
  const send = (message: FromWorker) => void process.send?.(message);
  const obey = async (message: ToWorker): Promise<FromWorker> => {
    if ('plan' in message) {
      looker = lookerOf(message.plan);
      return { ready: true };
    }
    if (looker === undefined) throw new Error('a batch came before the plan');
    const found: (Found & { number: number })[] = [];
    const late: (Late & { number: number })[] = [];
    for (const { number, state } of message.batch) {
      const what = late.length > 0 ? { hung: false } : await looker.look(parseState(state));
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
    looker?.close();
    process.exit(0);
  });
  // A Ctrl-C of the terminal is the parent's to handle: it ends the workers when they have let go of their disks.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => {});
}

function lookerOf(plan: WorkerPlan): Looker {
  const recording = openRecording(plan.log, plan.end);
  const service = new RestoreService(plan.restore, plan.env);
  const bits = new Map(plan.digests.map((digest, bit) => [digest, bit]));
  let longestMs = 0;
  const ask: Ask = async (paths, changed) => {
    const leftMs = plan.untilMs - Date.now();
    if (leftMs <= 0) return { hung: false };
    const startMs = performance.now();
    const { live, problems, error, late } = await service.ask(
      paths,
      Math.min(plan.patienceMs, leftMs),
      changed,
    );
    const tookMs = performance.now() - startMs;
    if (late && leftMs < plan.patienceMs)
      return { hung: tookMs > Math.max(LEAST_HUNG_MS, FAR_MORE * longestMs) };
    if (!late) longestMs = Math.max(longestMs, tookMs);
    return error === undefined ? foundOf(bits, plan.digests.length, live, problems) : notRecovered(error);
  };
  const looker =
    plan.way.name === 'image' ? imageLooker(plan, recording, ask) : mountLooker(plan, recording, ask);
  return {
    look: looker.look,
    close() {
      service.end();
      looker.close();
      recording.close();
    },
  };
}

type Ask = (paths: Paths, changed?: Changed) => Promise<Found | Late>;

function imageLooker({ way, base, baseAt }: WorkerPlan, recording: Recording, ask: Ask): Looker {
  const files = way.name === 'image' ? way.files : [];
  const bytes = files.map((file) => [file.name, new FileBytes(recording, file, base, baseAt)] as const);
  const paths = Object.fromEntries(files.map(({ name, path }) => [name, path]));
  return {
    look(state) {
      const changed = Object.fromEntries(bytes.map(([name, file]) => [name, file.make(state)]));
      return ask(paths, changed);
    },
    close() {
      for (const [, file] of bytes) file.close();
    },
  };
}

function mountLooker({ way, base, baseAt }: WorkerPlan, recording: Recording, ask: Ask): Looker {
  if (way.name !== 'mount') throw new Error('expected the plan of a mount');
  const { queue, ...places } = way;
  const disk = new StateDisk({ recording, base, baseAt, ...places });
  const directory = join(places.mountPoint, queue);
  return {
    async look(state) {
      try {
        disk.mount(state);
      } catch (error) {
        return unmountable(messageOf(error));
      }
      try {
        return await ask({ queue: directory });
      } finally {
        disk.unmount();
      }
    },
    close: () => disk.close(),
  };
}

main();

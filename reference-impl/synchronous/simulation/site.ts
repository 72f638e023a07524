import { ENTRY, FIELD, NONE } from '../index/layout.js';
import type { Ground } from '../queue/ground.js';
import { installQueue } from '../queue/install.js';
import { Pair } from '../queue/pair.js';
import { withSnapshot } from '../queue/snapshot.js';
import { problemsOf } from '../queue/verify.js';
import type { Body } from '../record/body.js';
import { decodeBody } from '../record/codec.js';
import { bodyOf, readSlot } from '../record/record.js';
import { parseSettings } from '../settings/load.js';
import type { QueueSettings } from '../settings/settings.js';
import { Killed, Life } from './life.js';
import { Machine } from './machine.js';
import { Violation } from './model.js';
import { SimKernel } from './sim-kernel.js';
import { SteppedImage } from './stepped.js';

const PAGE_BYTES = 4096;
/** Six pages of ring: small enough that it is full and wraps around within a short story. */
const DATA_BYTES = 8 * PAGE_BYTES;
const DIRECTORY = '/queue';

export const MAX_MESSAGE_BYTES = 5000;

/** A queue as small as its code allows, with time-outs of a few simulated milliseconds. */
export const settings: QueueSettings = {
  ...parseSettings({
    directory: DIRECTORY,
    indexSyncMs: 40,
    sync: { helperTimeoutMs: 20, confirmationTimeoutMs: 10, requestTimeoutMs: 200 },
  }),
  dataBytes: DATA_BYTES,
  entries: 24,
  workerSlots: 4,
  maxRecordBytes: 8192,
  deadLetter: { directory: `${DIRECTORY}/dead`, dataBytes: 3 * PAGE_BYTES, entries: 4 },
};

const [pair] = settings.pairs;
if (!pair) throw new Error('a queue has a pair');
export const directories = pair;
export const INDEX_PATH = `${pair.indexDirectory}/queue.index`;

/** A process on a machine. */
export class SimProcess {
  readonly name: string;
  readonly life = new Life();
  readonly kernel: SimKernel;
  readonly ground: Ground;

  constructor(machine: Machine, name: string) {
    this.name = name;
    this.kernel = new SimKernel(machine, this.life, name);
    this.ground = {
      kernel: this.kernel,
      image: (bytes, geometry) => new SteppedImage(bytes, geometry, this.life),
    };
  }

  end(): void {
    this.life.alive = false;
    this.kernel.release();
  }
}

/** A machine with a queue installed by the queue's own code, everything on the medium; the index has a drive of its own. */
export async function installedMachine(): Promise<Machine> {
  const machine = new Machine((path) => (path.includes('queue.index') ? 1 : 0));
  machine.name({ change: 'add', path: '/', node: { kind: 'directory' } });
  const installer = new SimProcess(machine, 'installer');
  await installQueue(settings, installer.kernel);
  installer.end();
  return machine;
}

/** What the index of an open pair lists, read as for delivery. @throws Violation PP-9 for what cannot be read. */
export function listingOf({ image, data, key, ring }: Pair): Body[] {
  const bodies: Body[] = [];
  for (let entry = image.get(FIELD.head); entry !== NONE && bodies.length < image.geometry.entries; ) {
    const at = image.entryWord(entry);
    const offset = image.getWide(at + ENTRY.offset);
    const found = offset >= ring.start && offset < ring.end ? readSlot(data, key, offset) : undefined;
    if (found?.state !== 'valid') {
      throw new Violation('PP-9', `the index lists a record at ${offset} where none is`);
    }
    bodies.push(decodeBody(found.header.type, bodyOf(data, found.header)));
    entry = image.get(at + ENTRY.next);
  }
  return bodies;
}

/** Are the lists of an open pair well formed, and do they hold what the data file holds? @throws Violation PP-9 */
export function verifyPair({ image, data, key, ring }: Pair): void {
  const counts = { live: 0, reserved: 0, locked: 0 };
  const [problem] = problemsOf({ image, data, key, ring, inUse: false }, counts);
  if (problem) throw new Violation('PP-9', problem);
}

/** The same of a queue in use. @throws Violation PP-9 */
export function verifyMachine(machine: Machine): void {
  const observer = new SimProcess(machine, 'verify');
  const counts = { live: 0, reserved: 0, locked: 0 };
  const [problem] = withSnapshot(directories, (snapshot) => problemsOf(snapshot, counts), observer.kernel);
  observer.end();
  if (problem) throw new Violation('PP-9', problem);
}

/**
 * Opens, and by that restores, the queue of a machine on which nothing runs.
 * @param killedAfter steps after which the first attempt is killed; 0: it is not.
 * @param cutAfterKill the seed of a power cut that follows the kill; undefined: none does.
 * @throws Violation PP-10 when the restore fails by itself.
 */
export function restore(
  machine: Machine,
  killedAfter: number,
  cutAfterKill: number | undefined,
): { machine: Machine; pair: Pair; process: SimProcess } {
  const process = new SimProcess(machine, 'restorer');
  if (killedAfter > 0) process.life.dieIn(killedAfter);
  try {
    return { machine, pair: Pair.open(directories, settings, process.ground), process };
  } catch (error) {
    process.end();
    if (!(error instanceof Killed))
      throw new Violation('PP-10', `the restore fails: ${(error as Error).message}`);
    return restore(cutAfterKill === undefined ? machine : machine.afterCut(cutAfterKill), 0, undefined);
  }
}

import { ENTRY, FIELD, NONE } from '../index/layout.js';
import { installQueue } from '../queue/install.js';
import { Pair } from '../queue/pair.js';
import type { Platform } from '../queue/platform.js';
import { withSnapshot } from '../queue/snapshot.js';
import { problemsOf } from '../queue/verify.js';
import type { Body } from '../record/body.js';
import { decodeBody } from '../record/codec.js';
import { bodyOf, readSlot } from '../record/record.js';
import { parseSettings } from '../settings/load.js';
import type { QueueSettings } from '../settings/settings.js';
import { SimMachine } from './machine.js';
import { Violation } from './model.js';
import { Killed, ProcessLifetime } from './process-lifetime.js';
import { SimKernel } from './sim-kernel.js';
import { SteppedImage } from './stepped.js';

const PAGE_BYTES = 4096;
/** Six pages of ring: small enough that it is full and wraps around within a short story. */
const DATA_BYTES = 8 * PAGE_BYTES;
const DIRECTORY = '/queue';

export const MAX_MESSAGE_BYTES = 5000;

/** A queue as small as its code allows, with time-outs of a few simulated milliseconds. */
export const simulatedSettings: QueueSettings = {
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

const [pair] = simulatedSettings.pairs;
if (!pair) throw new Error('a queue has a pair');
export const simulatedPair = pair;
export const INDEX_PATH = `${pair.indexDirectory}/queue.index`;

/** A process on a machine. */
export class SimProcess {
  readonly name: string;
  readonly lifetime = new ProcessLifetime();
  readonly kernel: SimKernel;
  readonly platform: Platform;

  constructor(machine: SimMachine, name: string) {
    this.name = name;
    this.kernel = new SimKernel(machine, this.lifetime, name);
    this.platform = {
      kernel: this.kernel,
      createImage: (bytes, geometry) => new SteppedImage(bytes, geometry, this.lifetime),
    };
  }

  terminate(): void {
    this.lifetime.alive = false;
    this.kernel.release();
  }
}

/** A machine with a queue installed by the queue's own code, everything on the medium; the index has a drive of its own. */
export async function installMachine(): Promise<SimMachine> {
  const machine = new SimMachine((path) => (path.includes('queue.index') ? 1 : 0));
  machine.changeNames({ change: 'add', path: '/', node: { kind: 'directory' } });
  const installer = new SimProcess(machine, 'installer');
  await installQueue(simulatedSettings, installer.kernel);
  installer.terminate();
  return machine;
}

/** What the index of an open pair lists, read as for delivery. @throws Violation PP-9 for what cannot be read. */
export function listBodies({ image, data, key, ring }: Pair): Body[] {
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
export function verifyMachine(machine: SimMachine): void {
  const observer = new SimProcess(machine, 'verify');
  const counts = { live: 0, reserved: 0, locked: 0 };
  const [problem] = withSnapshot(simulatedPair, (snapshot) => problemsOf(snapshot, counts), observer.kernel);
  observer.terminate();
  if (problem) throw new Violation('PP-9', problem);
}

/**
 * Opens, and by that restores, the queue of a machine on which nothing runs.
 * @param killAfterSteps steps after which the first attempt is killed; 0: it is not.
 * @param powerCutSeed the seed of a power cut that follows the kill; undefined: none does.
 * @throws Violation PP-10 when the restore fails by itself.
 */
export function restore(
  machine: SimMachine,
  killAfterSteps: number,
  powerCutSeed: number | undefined,
): { machine: SimMachine; pair: Pair; process: SimProcess } {
  const process = new SimProcess(machine, 'restorer');
  if (killAfterSteps > 0) process.lifetime.killAfter(killAfterSteps);
  try {
    return { machine, pair: Pair.open(simulatedPair, simulatedSettings, process.platform), process };
  } catch (error) {
    process.terminate();
    if (!(error instanceof Killed))
      throw new Violation('PP-10', `the restore fails: ${(error as Error).message}`);
    return restore(powerCutSeed === undefined ? machine : machine.afterPowerCut(powerCutSeed), 0, undefined);
  }
}

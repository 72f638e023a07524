import { SimMachine } from '../../common/simulation/machine.js';
import { Killed } from '../../common/simulation/process-lifetime.js';
import { SimProcess } from '../../common/simulation/sim-process.js';
import { Violation } from '../../common/simulation/violation.js';
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
import { SteppedImage } from './stepped-image.js';

const PAGE_BYTES = 4096;
/** Size of the data file. Its ring has six pages, so that it becomes full and wraps around within a short run. */
const DATA_BYTES = 8 * PAGE_BYTES;
const DIRECTORY = '/queue';

/** Maximum size of the filler of a message, in bytes. */
export const MAX_MESSAGE_BYTES = 5000;

/** Settings of a queue that is as small as its code allows, with time-outs of a few simulated milliseconds. */
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
/** The directories of the only pair of the simulated queue. */
export const simulatedPair = pair;
/** Path of the index file of the simulated queue's only pair. */
export const INDEX_PATH = `${pair.indexDirectory}/queue.index`;

/** A simulated process of the queue on a machine. */
export class QueueProcess extends SimProcess {
  readonly platform: Platform;

  constructor(machine: SimMachine, name: string) {
    super(machine, name);
    this.platform = {
      kernel: this.kernel,
      createImage: (bytes, geometry) => new SteppedImage(bytes, geometry, this.lifetime),
    };
  }
}

/**
 * Creates a machine and installs a queue on it with the code of the queue. All files are on the medium. The
 * index has a separate drive.
 */
export async function installMachine(): Promise<SimMachine> {
  const machine = new SimMachine((path) => (path.includes('queue.index') ? 1 : 0));
  machine.changeNames({ change: 'add', path: '/', node: { kind: 'directory' } });
  const installer = new QueueProcess(machine, 'installer');
  await installQueue(simulatedSettings, installer.kernel);
  installer.terminate();
  return machine;
}

/** Reads the messages that the index of an open pair lists. @throws Violation PP-9 when a record cannot be read */
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

/** Checks that the lists of an open pair are well formed and match the data file. @throws Violation PP-9 */
export function verifyPair({ image, data, key, ring }: Pair): void {
  const counts = { live: 0, reserved: 0, locked: 0 };
  const [problem] = problemsOf({ image, data, key, ring, inUse: false }, counts);
  if (problem) throw new Violation('PP-9', problem);
}

/**
 * Checks that the lists of a queue in use are well formed and match the data file, on a snapshot of the
 * queue's files. @throws Violation PP-9
 */
export function verifyMachine(machine: SimMachine): void {
  const observer = new QueueProcess(machine, 'verify');
  const counts = { live: 0, reserved: 0, locked: 0 };
  const [problem] = withSnapshot(simulatedPair, (snapshot) => problemsOf(snapshot, counts), observer.kernel);
  observer.terminate();
  if (problem) throw new Violation('PP-9', problem);
}

/**
 * Opens and thereby restores the queue of a machine on which no process runs.
 * @param killAfterSteps number of steps after which the first attempt is killed; 0: no kill
 * @param powerCutSeed seed of a power cut that follows the kill; undefined: no power cut
 * @throws Violation PP-10 when the restore fails without a kill
 */
export function restore(
  machine: SimMachine,
  killAfterSteps: number,
  powerCutSeed: number | undefined,
): { machine: SimMachine; pair: Pair; process: QueueProcess } {
  const process = new QueueProcess(machine, 'restorer');
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

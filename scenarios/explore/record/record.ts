import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { KitError } from '../../../conformance/errors.js';
import type { Recorder } from '../../../conformance/history/recorder.js';
import type { Message } from '../../../conformance/protocols/message.js';
import type { Answer, Receipts } from '../../../conformance/protocols/protocol.js';
import { recordReceipts } from '../../../conformance/protocols/receipts.js';
import type { Filesystem } from '../../../faults/power/filesystem.js';
import { atExit } from '../../host/at-exit.js';
import { seeded } from '../../host/random.js';
import {
  hintOfClosedDirectory,
  INSTALL_TIMEOUT_MS,
  type LaunchedTarget,
  type LaunchPlan,
  launch,
  scratchDirOf,
} from '../../round/launch.js';
import { Ledger } from '../../round/workload/ledger.js';
import { Producers } from '../../round/workload/producers.js';
import { type Unwritten, WriteWitness } from '../../round/write-witness.js';
import { createRecordedDisk, DATA_DIR, makeDurableDirectory } from '../../runtime/disks/local-disk.js';
import { type FileSample, FileSampler } from './file-samples.js';

/** The options of `recordRun`. */
export interface RecordOptions extends Omit<LaunchPlan, 'recorder' | 'receipts' | 'dataDir'> {
  recorder: Recorder;
  filesystem: Filesystem;
  seed: number;
  /** Duration of the load, in milliseconds. */
  loadMs: number;
}

/** A run of the target on a recorded disk, up to the moment when the disk stopped. */
export interface RecordedRun {
  /** Id of the recorded run. Every message contains it. */
  id: string;
  /** Path of the image of the device before the run. */
  image: string;
  /** Path of the log of all writes and flushes. */
  log: string;
  /** Path of the target's `{scratch}`. */
  scratch: string;
  /** Number of log entries when the target was ready for the first time. */
  from: number;
  /** Number of log entries when the disk stopped. */
  end: number;
  filesystem: Filesystem;
  /**
   * Reason why the disk shows nothing about the messages, which were confirmed while nothing on it changed; undefined
   * when the target wrote to it.
   */
  unwritten?: Pick<Unwritten, 'why' | 'writesElsewhere'> | undefined;
  /** Files outside `{data}` that the target was seen to write; absent in a saved recording. */
  writtenOutside?: readonly string[];
  /** Command lines of processes that had escaped from their service, and were killed. */
  escaped?: readonly string[];
  /** SHA-256 of every message that was submitted, by id. */
  digests: ReadonlyMap<string, string>;
  /** The files of the data directory during the load, oldest first. */
  samples: readonly FileSample[];
  /** Removes the image and the log. */
  remove(): void;
}

/** Size of the recorded disk, in bytes. */
export const DISK_BYTES = 512 * 2 ** 20;
export const START_TIMEOUT_MS = 30_000;
const PRODUCER_COUNT = 4;
const IN_FLIGHT_PER_PRODUCER = 6;
/**
 * Number of messages at risk that ends the first of two phases, which alternate under load. In this phase the
 * receivers are held, so that a power cut can lose something.
 */
const MAX_HELD_MESSAGES = 120;
/** Upper bound of the phase in which the receivers are held, in milliseconds. */
const MAX_HELD_MS = 700;
/** Number of delivered messages that ends the second of the two phases, in which the receivers consume. */
const MAX_FLOW_MESSAGES = 40;
/** Upper bound of the phase in which the receivers consume, in milliseconds. */
const MAX_FLOW_MS = 150;

/**
 * A ledger that also records, for each message, the position in the log of writes at which it was confirmed,
 * and at which it was offered to a receiver.
 */
export class LogPositionLedger extends Ledger {
  readonly digests = new Map<string, string>();
  readonly #recordPosition: (id: string, what: 'confirmed' | 'offered') => void;

  /** @param entries returns the present position. */
  constructor(run: string, recorder: Recorder, entries: (what: 'confirmed' | 'offered') => number) {
    super(run, recorder);
    this.#recordPosition = (id, what) =>
      void recorder.record({ kind: 'log-position', id, what, entries: entries(what) });
  }

  override submitted(message: Message, producer: number, compose?: () => Buffer): void {
    super.submitted(message, producer, compose);
    this.digests.set(message.id, createHash('sha256').update(message.bytes).digest('hex'));
  }

  override answered(id: string, answer: Answer, node?: string): void {
    // Read the position after the answer has come: every write that the answer relies on is in the log by
    // then.
    if (answer.outcome === 'confirmed') this.#recordPosition(id, 'confirmed');
    super.answered(id, answer, node);
  }

  override trackReceipts(next: Receipts): Receipts {
    const following = super.trackReceipts(next);
    return {
      ...following,
      delivered: (what) => {
        // Read the position before the receiver accepts: what the target writes because of it is not in the
        // log yet.
        if (what.id !== null) this.#recordPosition(what.id, 'offered');
        return following.delivered(what);
      },
    };
  }
}

/**
 * Installs and starts the target on a recorded disk, loads it, and stops the disk under load.
 * @throws KitError target-unavailable when the target does not start, kit-failed when the disk cannot be
 *   made.
 */
export async function recordRun(options: RecordOptions): Promise<RecordedRun> {
  const { registry, recorder, filesystem, dir, target } = options;
  const mountPoint = join(dir, 'disk');
  const plan = { name: 'recording', mountPoint, sizeBytes: DISK_BYTES };
  const disk = await createRecordedDisk(plan, filesystem, registry);
  const cancelAtExit = atExit(() => disk.remove());
  const remove = () => {
    cancelAtExit();
    disk.remove();
  };
  try {
    const entries = () => disk.completeEntries();
    const ledger = new LogPositionLedger(registry.runId, recorder, entries);
    const dataDir = join(mountPoint, DATA_DIR);
    makeDurableDirectory(dataDir);
    const escaped: string[] = [];
    const launched = await launch({
      ...options,
      onEscaped: (command) => void escaped.push(command),
      dataDir,
      logDirLabel: 'logs',
      receipts: ledger.trackReceipts(recordReceipts(recorder)),
    });
    try {
      recorder.record({ kind: 'installed', round: 1 });
      await launched.install(target.crashStates?.install ?? target.install, INSTALL_TIMEOUT_MS);
      const scratchDir = join(dir, 'scratch');
      const witness = new WriteWitness({
        ...{ tally: ledger.tally, dataDir, scratchDir },
        ignored: [join(dir, 'logs')],
      });
      const start = await launched.supervisor.bringUp(START_TIMEOUT_MS, 'first');
      if (!start.ready)
        throw new KitError(
          'target-unavailable',
          `the target did not get ready: ${start.detail}${hintOfClosedDirectory(dataDir, start.detail)}; its logs are in ${join(dir, 'logs')}`,
        );
      const from = entries();
      await witness.noteReady(options.signal);
      const sampler = new FileSampler(dataDir, entries);
      const producers = await sampler.during(() => runLoad(options, ledger, launched));
      const messagesIn = (bytes: Buffer) => ledger.outstandingIn(bytes);
      if (disk.lost !== undefined) throw new KitError('kit-failed', disk.lost);
      const unwritten = await witness.inspect(launched.supervisor.services, messagesIn);
      const end = disk.stop();
      launched.supervisor.expectExits();
      disk.resume();
      await launched.destroy();
      await producers.stop();
      const { digests } = ledger;
      return {
        id: registry.runId,
        ...disk.endRecording(),
        scratch: scratchDirOf(dir),
        from,
        end,
        filesystem,
        unwritten: unwritten && { why: unwritten.why, writesElsewhere: unwritten.writesElsewhere },
        writtenOutside: witness.writtenOutside,
        escaped,
        digests,
        samples: sampler.samples,
        remove,
      };
    } finally {
      await launched.destroy();
    }
  } catch (error) {
    const { lost } = disk;
    remove();
    throw lost === undefined ? error : new KitError('kit-failed', lost);
  }
}

/**
 * Loads the target for `loadMs`. Returns the producers, which are still submitting.
 * @param maxHeldMs upper bound of each phase in which the receivers are held.
 */
export async function runLoad(
  options: Pick<RecordOptions, 'registry' | 'protocol' | 'seed' | 'loadMs' | 'signal' | 'target'>,
  ledger: Ledger,
  { receiver, addresses }: Pick<LaunchedTarget, 'receiver' | 'addresses'>,
  maxHeldMs = MAX_HELD_MS,
): Promise<Producers> {
  const { registry, protocol, seed, loadMs, signal, target } = options;
  const producers = new Producers({
    run: registry.runId,
    round: 1,
    protocol,
    addresses,
    ledger,
    random: seeded(seed).fork('workload'),
    count: PRODUCER_COUNT,
    depth: IN_FLIGHT_PER_PRODUCER,
    inOrder: target.guarantee.order !== undefined,
    signal,
  });
  const endMs = performance.now() + loadMs;
  const { tally } = ledger;
  const leftMs = () => Math.max(0, endMs - performance.now());
  while (leftMs() > 0 && !signal.aborted && !producers.hasFailed) {
    receiver.hold();
    await ledger.waitUntil(
      () => tally.outstanding >= MAX_HELD_MESSAGES,
      Math.min(maxHeldMs, leftMs()),
      signal,
    );
    if (leftMs() === 0) break;
    receiver.release();
    const deliveredGoal = tally.delivered + MAX_FLOW_MESSAGES;
    await ledger.waitUntil(() => tally.delivered >= deliveredGoal, Math.min(MAX_FLOW_MS, leftMs()), signal);
  }
  receiver.hold();
  // Do not wait for the messages in flight: the disk must stop while the target works on them.
  return producers;
}

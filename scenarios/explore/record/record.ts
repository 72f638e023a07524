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
import { INSTALL_TIMEOUT_MS, type LaunchPlan, launch } from '../../round/launch.js';
import { Ledger } from '../../round/workload/ledger.js';
import { Producers } from '../../round/workload/producers.js';
import { createRecordedDisk, DATA_DIR, makeDurableDirectory } from '../../runtime/disks/local-disk.js';

export interface RecordOptions extends Omit<LaunchPlan, 'recorder' | 'receipts' | 'dataDir'> {
  recorder: Recorder;
  filesystem: Filesystem;
  seed: number;
  /** So long the target is loaded. */
  loadMs: number;
}

/** A run of the target on a recorded disk, up to the moment when the disk stopped. */
export interface RecordedRun {
  /** Of the run that was recorded: it marks every message. */
  id: string;
  /** The device as it was at the beginning, and all that was done to it. */
  image: string;
  log: string;
  /** Entries of the log when the target was ready for the first time. */
  from: number;
  /** Entries of the log when the disk stopped. */
  end: number;
  filesystem: Filesystem;
  /** SHA-256 of every message that was submitted, by id. */
  digests: ReadonlyMap<string, string>;
  remove(): void;
}

export const DISK_BYTES = 512 * 2 ** 20;
const START_TIMEOUT_MS = 30_000;
const PRODUCER_COUNT = 4;
const IN_FLIGHT_PER_PRODUCER = 6;
/** Receivers are held back until so much is at stake, or for so long; then let go for a moment. */
const MAX_HELD_MESSAGES = 120;
const MAX_HELD_MS = 700;
const MAX_FLOW_MESSAGES = 40;
const MAX_FLOW_MS = 150;

/** Notes for each message at which place of the log it was confirmed, and at which it was offered to a receiver. */
class LogPositionLedger extends Ledger {
  readonly digests = new Map<string, string>();
  readonly #recordPosition: (id: string, what: 'confirmed' | 'offered') => void;

  constructor(run: string, recorder: Recorder, entries: () => number) {
    super(run, recorder);
    this.#recordPosition = (id, what) =>
      void recorder.record({ kind: 'log-position', id, what, entries: entries() });
  }

  override submitted(message: Message, producer: number): void {
    super.submitted(message, producer);
    this.digests.set(message.id, createHash('sha256').update(message.bytes).digest('hex'));
  }

  override answered(id: string, answer: Answer): void {
    // After the answer: whatever it rests on is in the log by now.
    if (answer.outcome === 'confirmed') this.#recordPosition(id, 'confirmed');
    super.answered(id, answer);
  }

  override trackReceipts(next: Receipts): Receipts {
    const following = super.trackReceipts(next);
    return {
      ...following,
      delivered: (what) => {
        // Before it is accepted: what the target makes of that is not in the log yet.
        if (what.id !== null) this.#recordPosition(what.id, 'offered');
        return following.delivered(what);
      },
    };
  }
}

/**
 * Installs and starts the target on a recorded disk, loads it, and stops the disk in the middle of that.
 * @throws KitError target-unavailable when the target does not start, kit-failed when the disk cannot be made.
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
    const launched = await launch({
      ...options,
      dataDir,
      receipts: ledger.trackReceipts(recordReceipts(recorder)),
    });
    try {
      recorder.record({ kind: 'installed', round: 1 });
      await launched.install(target.crashStates?.install ?? target.install, INSTALL_TIMEOUT_MS);
      const start = await launched.supervisor.bringUp(START_TIMEOUT_MS);
      if (!start.ready)
        throw new KitError(
          'target-unavailable',
          `the target did not get ready: ${start.detail}; its logs are in ${dir}`,
        );
      const from = entries();
      const producers = await runLoad(options, ledger, launched);
      const end = disk.stop();
      launched.supervisor.expectExits();
      disk.resume();
      await launched.destroy();
      await producers.stop();
      const { digests } = ledger;
      return {
        id: registry.runId,
        ...disk.endRecording(),
        from,
        end,
        filesystem,
        digests,
        remove,
      };
    } finally {
      await launched.destroy();
    }
  } catch (error) {
    remove();
    throw error;
  }
}

type Running = Awaited<ReturnType<typeof launch>>;

async function runLoad(
  options: RecordOptions,
  ledger: Ledger,
  { receiver, ports }: Running,
): Promise<Producers> {
  const { registry, protocol, seed, loadMs, signal } = options;
  const producers = new Producers({
    run: registry.runId,
    round: 1,
    protocol,
    ports,
    ledger,
    random: seeded(seed).fork('workload'),
    count: PRODUCER_COUNT,
    depth: IN_FLIGHT_PER_PRODUCER,
    signal,
  });
  const endMs = performance.now() + loadMs;
  const { tally } = ledger;
  const leftMs = () => Math.max(0, endMs - performance.now());
  while (leftMs() > 0 && !signal.aborted && !producers.hasFailed) {
    receiver.hold();
    await ledger.waitUntil(
      () => tally.outstanding >= MAX_HELD_MESSAGES,
      Math.min(MAX_HELD_MS, leftMs()),
      signal,
    );
    if (leftMs() === 0) break;
    receiver.release();
    const deliveredGoal = tally.delivered + MAX_FLOW_MESSAGES;
    await ledger.waitUntil(() => tally.delivered >= deliveredGoal, Math.min(MAX_FLOW_MS, leftMs()), signal);
  }
  receiver.hold();
  // Nobody waits for what is under way: the disk stops in the middle of it.
  return producers;
}

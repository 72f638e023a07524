import { join } from 'node:path';
import type { Recording } from '../../../faults/crash-states/materialise.js';
import { StateDisk } from '../../../faults/crash-states/state-disk.js';
import type { Filesystem } from '../../../faults/power/filesystem.js';
import type { CrashState } from '../../../faults/write-log/state.js';
import { type Inspection, notRecovered, toInspection, tryMount } from './inspection.js';
import type { RestorePaths, RestoreService } from './restore-service.js';

/**
 * A wait that was cut off by the end of the time counts as a hang when it was longer than this time and
 * longer than HUNG_FACTOR times the longest completed wait.
 */
const MIN_HUNG_MS = 1000;
/** Factor by which a hang must exceed the longest completed wait; see MIN_HUNG_MS. */
const HUNG_FACTOR = 5;

/** The result for a state that was not inspected because the time was over. */
export interface TimedOut {
  /** True when the restore program already had far more time for this state than for any other. */
  hung: boolean;
}

/** The files and the mount point of a worker (`DiskSlot`), and the directory that is restored. */
export interface MountPlan {
  /** Path of the image with the writes that are certainly on the medium, as in `DiskSlot`. */
  stable: string;
  /** Path of the image of the current state, as in `DiskSlot`. */
  image: string;
  /** Loop device that is attached to `image`, as in `DiskSlot`. */
  device: string;
  mountPoint: string;
  filesystem: Filesystem;
  /** Directory that is restored, relative to the mount point. */
  queue: string;
}

/** Limits of the wait for the target's restore program. */
export interface RestoreTimeouts {
  /** Upper bound for the answer to one request, in milliseconds. */
  restoreTimeoutMs: number;
  /**
   * End of every wait, in milliseconds since the epoch: the clocks of `performance.now()` differ between
   * processes.
   */
  deadlineEpochMs: number;
}

/** Asks the target's restore program as long as there is time, and converts its answers into inspections. */
export class RestoreClient {
  readonly #service: RestoreService;
  readonly #timeouts: RestoreTimeouts;
  readonly #digests: readonly string[];
  readonly #bits: ReadonlyMap<string, number>;
  /** Longest time of a completed request, in milliseconds. */
  #maxStateMs = 0;

  /** @param digests SHA-256 of the messages, in the order of the messages' bits in an inspection. */
  constructor(service: RestoreService, timeouts: RestoreTimeouts, digests: readonly string[]) {
    this.#service = service;
    this.#timeouts = timeouts;
    this.#digests = digests;
    this.#bits = new Map(digests.map((digest, bit) => [digest, bit]));
  }

  /** Lets the program restore a directory. Returns what it holds, or that the time was over. */
  async inspect(paths: RestorePaths): Promise<Inspection | TimedOut> {
    const { restoreTimeoutMs, deadlineEpochMs } = this.#timeouts;
    const leftMs = deadlineEpochMs - Date.now();
    if (leftMs <= 0) return { hung: false };
    const startMs = performance.now();
    const restored = await this.#service.ask(paths, Math.min(restoreTimeoutMs, leftMs));
    const tookMs = performance.now() - startMs;
    if (restored.timedOut === true && leftMs < restoreTimeoutMs)
      return { hung: tookMs > Math.max(MIN_HUNG_MS, HUNG_FACTOR * this.#maxStateMs) };
    if (restored.error !== undefined) return notRecovered(restored.error);
    this.#maxStateMs = Math.max(this.#maxStateMs, tookMs);
    return toInspection(this.#bits, this.#digests.length, restored.live, restored.problems);
  }
}

/**
 * Inspects crash states: mounts each, which replays the journal of its filesystem, and lets the program
 * restore it.
 */
export class MountInspector {
  readonly #disk: StateDisk;
  readonly #queue: string;
  readonly #client: RestoreClient;

  /**
   * @param base path of an image of the recorded disk on which the first `baseAt` writes and flushes of the log
   * are done.
   */
  constructor(plan: MountPlan, recording: Recording, base: string, baseAt: number, client: RestoreClient) {
    const { queue, ...diskPlan } = plan;
    this.#disk = new StateDisk({ recording, base, baseAt, ...diskPlan });
    this.#queue = join(diskPlan.mountPoint, queue);
    this.#client = client;
  }

  /** Inspects the given states. Returns the results in the same order. A timeout ends the inspection. */
  async inspect(states: readonly CrashState[]): Promise<(Inspection | TimedOut)[]> {
    const results: (Inspection | TimedOut)[] = [];
    for (const state of states) {
      const result = results.some((one) => 'hung' in one) ? { hung: false } : await this.#inspectOne(state);
      results.push(result);
    }
    return results;
  }

  async #inspectOne(state: CrashState): Promise<Inspection | TimedOut> {
    const refused = tryMount(this.#disk, state);
    if (refused !== undefined) return refused;
    try {
      return await this.#client.inspect({ queue: this.#queue });
    } finally {
      this.#disk.unmount();
    }
  }

  close(): void {
    this.#disk.close();
  }
}

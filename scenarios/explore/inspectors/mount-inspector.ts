import { join } from 'node:path';
import type { Recording } from '../../../faults/crash-states/materialise.js';
import { StateDisk } from '../../../faults/crash-states/state-disk.js';
import type { Filesystem } from '../../../faults/power/filesystem.js';
import type { CrashState } from '../../../faults/write-log/state.js';
import { type Inspection, notRecovered, toInspection, tryMount } from './inspection.js';
import type { RestorePaths, RestoreService } from './restore-service.js';

/** A wait that the end of the time cut short shows a hang if it was so long, and so many times the usual one. */
const MIN_HUNG_MS = 1000;
const HUNG_FACTOR = 5;

/** There was no time to look at a state; `hung`: it had been given far more than any other. */
export interface TimedOut {
  hung: boolean;
}

export interface MountPlan {
  stable: string;
  image: string;
  device: string;
  mountPoint: string;
  filesystem: Filesystem;
  /** Directory to be restored, below the mount. */
  queue: string;
}

/** How long the target's program is waited for. */
export interface RestoreTimeouts {
  /** So long the program may take for one request. */
  restoreTimeoutMs: number;
  /** When no answer is waited for any more, in milliseconds since the epoch. */
  deadlineEpochMs: number;
}

/** Asks the target's program as long as there is time, and says in bits what it has found. */
export class RestoreClient {
  readonly #service: RestoreService;
  readonly #timeouts: RestoreTimeouts;
  readonly #digests: readonly string[];
  readonly #bits: ReadonlyMap<string, number>;
  /** The longest time that a state has taken. */
  #maxStateMs = 0;

  /** @param digests SHA-256 of the messages, in the order of their bits. */
  constructor(service: RestoreService, timeouts: RestoreTimeouts, digests: readonly string[]) {
    this.#service = service;
    this.#timeouts = timeouts;
    this.#digests = digests;
    this.#bits = new Map(digests.map((digest, bit) => [digest, bit]));
  }

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

/** Mounts each state, which replays the journal of its filesystem. */
export class MountInspector {
  readonly #disk: StateDisk;
  readonly #queue: string;
  readonly #client: RestoreClient;

  /** @param base holds the device as it is when the entries before `baseAt` are on the medium. */
  constructor(plan: MountPlan, recording: Recording, base: string, baseAt: number, client: RestoreClient) {
    const { queue, ...diskPlan } = plan;
    this.#disk = new StateDisk({ recording, base, baseAt, ...diskPlan });
    this.#queue = join(diskPlan.mountPoint, queue);
    this.#client = client;
  }

  /** Returns what is found in these states, in their order. */
  async inspect(states: readonly CrashState[]): Promise<(Inspection | TimedOut)[]> {
    const results: (Inspection | TimedOut)[] = [];
    for (const state of states) {
      const found = results.some((one) => 'hung' in one) ? { hung: false } : await this.#inspectOne(state);
      results.push(found);
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

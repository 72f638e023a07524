import { closeSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { FileBytes } from '../../../faults/crash-states/file-bytes.js';
import type { Recording } from '../../../faults/crash-states/materialise.js';
import { StateDisk } from '../../../faults/crash-states/state-disk.js';
import type { Filesystem } from '../../../faults/power/filesystem.js';
import type { Extent } from '../../../faults/power/syscalls.js';
import type { CrashState } from '../../../faults/write-log/state.js';
import { type Inspection, notRecovered, toInspection, tryMount } from './inspection.js';
import type { RestoreService } from './restore-service.js';

/** A wait that the end of the time cut short shows a hang if it was so long, and so many times the usual one. */
const MIN_HUNG_MS = 1000;
const HUNG_FACTOR = 5;
/** States are asked for together, so many at most and so many as usually take so long. */
const MAX_BATCH_STATES = 16;
const BATCH_TARGET_MS = 50;

/** There was no time to look at a state; `hung`: it had been given far more than any other. */
export interface TimedOut {
  hung: boolean;
}

export interface StateInspector {
  /** What is found in these states, in their order. */
  inspect(states: readonly CrashState[]): Promise<(Inspection | TimedOut)[]>;
  close(): void;
}

/** Files that never move on the recorded disk, and where the program finds their bytes. */
export interface ImagePlan {
  name: 'image';
  files: readonly { name: string; extents: Extent[]; sizeBytes: number; path: string }[];
  /** A file for the bytes in which states differ. */
  patches: string;
}

export interface MountPlan {
  name: 'mount';
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

interface BatchReply {
  inspections: Inspection[];
  /** What is to be said of one of the others, when the program has failed or there was no time. */
  failure: Inspection | TimedOut | undefined;
}

/** Asks the target's program as long as there is time, and says in bits what it has found. */
export class RestoreClient {
  readonly #service: RestoreService;
  readonly #timeouts: RestoreTimeouts;
  readonly #digests: readonly string[];
  readonly #bits: ReadonlyMap<string, number>;
  /** Of what a state has taken. */
  #maxStateMs = 0;
  #lastStateMs = Number.POSITIVE_INFINITY;

  /** @param digests SHA-256 of the messages, in the order of their bits. */
  constructor(service: RestoreService, timeouts: RestoreTimeouts, digests: readonly string[]) {
    this.#service = service;
    this.#timeouts = timeouts;
    this.#digests = digests;
    this.#bits = new Map(digests.map((digest, bit) => [digest, bit]));
  }

  /** Number of the program that is asked next. */
  get processNumber(): number {
    return this.#service.processNumber;
  }

  /** So many states may be asked for together: one that hangs must not be waited for in the others' name. */
  get maxBatch(): number {
    return Math.max(1, Math.min(MAX_BATCH_STATES, Math.floor(BATCH_TARGET_MS / this.#lastStateMs)));
  }

  async inspect(request: object, count: number): Promise<BatchReply> {
    const { restoreTimeoutMs: patienceMs, deadlineEpochMs: untilMs } = this.#timeouts;
    const leftMs = untilMs - Date.now();
    if (leftMs <= 0) return { inspections: [], failure: { hung: false } };
    const startMs = performance.now();
    const { restored, failed } = await this.#service.askAll(request, count, Math.min(patienceMs, leftMs));
    const tookMs = performance.now() - startMs;
    const inspections = restored.map(({ live, problems, error }) =>
      error === undefined
        ? toInspection(this.#bits, this.#digests.length, live, problems)
        : notRecovered(error),
    );
    if (failed?.timedOut === true && leftMs < patienceMs) {
      const hung = tookMs > Math.max(MIN_HUNG_MS, HUNG_FACTOR * this.#maxStateMs * count);
      return { inspections, failure: { hung } };
    }
    this.#lastStateMs = tookMs / count;
    if (failed !== undefined) return { inspections, failure: notRecovered(failed.error ?? '') };
    this.#maxStateMs = Math.max(this.#maxStateMs, this.#lastStateMs);
    return { inspections, failure: undefined };
  }
}

/** Looks at the bytes of files straight from the image of their disk. */
export class ImageInspector implements StateInspector {
  readonly #files: readonly { name: string; path: string; bytes: FileBytes }[];
  readonly #paths: Readonly<Record<string, string>>;
  readonly #patches: string;
  readonly #fd: number;
  readonly #client: RestoreClient;
  /** The program that has seen the last state. */
  #primedProcess = 0;
  #buffer = Buffer.alloc(1 << 20);

  /** @param base holds the device as it is when the entries before `baseAt` are on the medium. */
  constructor(plan: ImagePlan, recording: Recording, base: string, baseAt: number, client: RestoreClient) {
    this.#files = plan.files.map(({ name, path, ...placed }) => ({
      name,
      path,
      bytes: new FileBytes(recording, placed, base, baseAt),
    }));
    this.#paths = Object.fromEntries(plan.files.map(({ name, path }) => [name, path]));
    this.#patches = plan.patches;
    this.#fd = openSync(plan.patches, 'w');
    this.#client = client;
  }

  async inspect(states: readonly CrashState[]): Promise<(Inspection | TimedOut)[]> {
    const results: (Inspection | TimedOut)[] = [];
    while (results.length < states.length) {
      const batchSize = this.#primedProcess === this.#client.processNumber ? this.#client.maxBatch : 1;
      const batch = states.slice(results.length, results.length + batchSize);
      const { inspections: inspection, failure: failed } = await this.#inspectBatch(batch);
      results.push(...inspection);
      if (failed === undefined) continue;
      if ('hung' in failed || batch.length === 1) results.push(failed);
      else results.push(...(await this.#inspectOneByOne(batch.slice(inspection.length), failed)));
      if (results.some((one) => 'hung' in one)) break;
    }
    // There is no time for the rest.
    while (results.length < states.length) results.push({ hung: false });
    return results;
  }

  /** In one of these states the program has failed, and it does not show in which. */
  async #inspectOneByOne(
    states: readonly CrashState[],
    batchFailure: Inspection,
  ): Promise<(Inspection | TimedOut)[]> {
    const results: (Inspection | TimedOut)[] = [];
    let failedAgain = false;
    for (const state of states) {
      const { inspections: found, failure: failed } = await this.#inspectBatch([state]);
      results.push(...found, ...(failed === undefined ? [] : [failed]));
      failedAgain ||= failed !== undefined;
      if (failed !== undefined && 'hung' in failed) break;
    }
    // Not seen again, and not to be passed over either.
    return failedAgain ? results : [batchFailure, ...results.slice(1)];
  }

  /** Whole files for a program that has seen nothing; then what differs from the state before. */
  #inspectBatch(states: readonly CrashState[]): Promise<BatchReply> {
    const [first] = states;
    if (this.#primedProcess !== this.#client.processNumber && first !== undefined) {
      this.#primedProcess = this.#client.processNumber;
      for (const { bytes, path } of this.#files) {
        bytes.materialise(first);
        writeFileSync(path, bytes.bytes);
      }
      return this.#client.inspect(this.#paths, 1);
    }
    let end = 0;
    const put = ({ bytes }: FileBytes, from: number, to: number): number => {
      const at = end;
      end += to - from;
      if (end > this.#buffer.length) this.#buffer = Buffer.concat([this.#buffer, Buffer.alloc(end)]);
      bytes.copy(this.#buffer, at, from, to);
      return at;
    };
    const steps = states.map((state) =>
      Object.fromEntries(
        this.#files.map(({ name, bytes }) => [
          name,
          bytes.materialise(state).map(([from, to]) => [from, to, put(bytes, from, to)]),
        ]),
      ),
    );
    for (let done = 0; done < end; ) done += writeSync(this.#fd, this.#buffer, done, end - done, done);
    return this.#client.inspect({ ...this.#paths, patches: this.#patches, states: steps }, states.length);
  }

  close(): void {
    closeSync(this.#fd);
  }
}

/** Mounts each state, which replays the journal of its filesystem. */
export class MountInspector implements StateInspector {
  readonly #disk: StateDisk;
  readonly #queue: string;
  readonly #client: RestoreClient;

  /** @param base holds the device as it is when the entries before `baseAt` are on the medium. */
  constructor(plan: MountPlan, recording: Recording, base: string, baseAt: number, client: RestoreClient) {
    const { queue, name: _, ...diskPlan } = plan;
    this.#disk = new StateDisk({ recording, base, baseAt, ...diskPlan });
    this.#queue = join(diskPlan.mountPoint, queue);
    this.#client = client;
  }

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
      const { inspections: found, failure: failed } = await this.#client.inspect({ queue: this.#queue }, 1);
      return found[0] ?? failed ?? notRecovered('crashStates.restore gave no answer');
    } finally {
      this.#disk.unmount();
    }
  }

  close(): void {
    this.#disk.close();
  }
}

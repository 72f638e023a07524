import { closeSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { FileBytes } from '../../../faults/crash-states/file-bytes.js';
import type { Recording } from '../../../faults/crash-states/materialise.js';
import { StateDisk } from '../../../faults/crash-states/state-disk.js';
import type { Filesystem } from '../../../faults/power/filesystem.js';
import type { Extent } from '../../../faults/power/syscalls.js';
import type { CrashState } from '../../../faults/write-log/state.js';
import { type Found, foundOf, notRecovered, tryMount } from './found.js';
import type { RestoreService } from './restore-service.js';

/** A wait that the end of the time cut short shows a hang if it was so long, and so many times the usual one. */
const LEAST_HUNG_MS = 1000;
const FAR_MORE = 5;
/** States are asked for together, so many at most and so many as usually take so long. */
const MOST_TOGETHER = 16;
const TOGETHER_MS = 50;

/** There was no time to look at a state; `hung`: it had been given far more than any other. */
export interface Late {
  hung: boolean;
}

export interface Looker {
  /** What is found in these states, in their order. */
  look(states: readonly CrashState[]): Promise<(Found | Late)[]>;
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
export interface Waiting {
  /** So long the program may take for one request. */
  patienceMs: number;
  /** When no answer is waited for any more, in milliseconds since the epoch. */
  untilMs: number;
}

interface Asked {
  found: Found[];
  /** What is to be said of one of the others, when the program has failed or there was no time. */
  failed: Found | Late | undefined;
}

/** Asks the target's program as long as there is time, and says in bits what it has found. */
export class Asker {
  readonly #service: RestoreService;
  readonly #waiting: Waiting;
  readonly #digests: readonly string[];
  readonly #bits: ReadonlyMap<string, number>;
  /** Of what a state has taken. */
  #longestMs = 0;
  #lastMs = Number.POSITIVE_INFINITY;

  /** @param digests SHA-256 of the messages, in the order of their bits. */
  constructor(service: RestoreService, waiting: Waiting, digests: readonly string[]) {
    this.#service = service;
    this.#waiting = waiting;
    this.#digests = digests;
    this.#bits = new Map(digests.map((digest, bit) => [digest, bit]));
  }

  /** Number of the program that is asked next. */
  get life(): number {
    return this.#service.life;
  }

  /** So many states may be asked for together: one that hangs must not be waited for in the others' name. */
  get together(): number {
    return Math.max(1, Math.min(MOST_TOGETHER, Math.floor(TOGETHER_MS / this.#lastMs)));
  }

  async ask(request: object, count: number): Promise<Asked> {
    const { patienceMs, untilMs } = this.#waiting;
    const leftMs = untilMs - Date.now();
    if (leftMs <= 0) return { found: [], failed: { hung: false } };
    const startMs = performance.now();
    const { restored, failed } = await this.#service.askAll(request, count, Math.min(patienceMs, leftMs));
    const tookMs = performance.now() - startMs;
    const found = restored.map(({ live, problems, error }) =>
      error === undefined ? foundOf(this.#bits, this.#digests.length, live, problems) : notRecovered(error),
    );
    if (failed?.late === true && leftMs < patienceMs) {
      const hung = tookMs > Math.max(LEAST_HUNG_MS, FAR_MORE * this.#longestMs * count);
      return { found, failed: { hung } };
    }
    this.#lastMs = tookMs / count;
    if (failed !== undefined) return { found, failed: notRecovered(failed.error ?? '') };
    this.#longestMs = Math.max(this.#longestMs, this.#lastMs);
    return { found, failed: undefined };
  }
}

/** Looks at the bytes of files straight from the image of their disk. */
export class ImageLooker implements Looker {
  readonly #files: readonly { name: string; path: string; bytes: FileBytes }[];
  readonly #paths: Readonly<Record<string, string>>;
  readonly #patches: string;
  readonly #fd: number;
  readonly #asker: Asker;
  /** The program that has seen the last state. */
  #seenBy = 0;
  #buffer = Buffer.alloc(1 << 20);

  /** @param base holds the device as it is when the entries before `baseAt` are on the medium. */
  constructor(plan: ImagePlan, recording: Recording, base: string, baseAt: number, asker: Asker) {
    this.#files = plan.files.map(({ name, path, ...placed }) => ({
      name,
      path,
      bytes: new FileBytes(recording, placed, base, baseAt),
    }));
    this.#paths = Object.fromEntries(plan.files.map(({ name, path }) => [name, path]));
    this.#patches = plan.patches;
    this.#fd = openSync(plan.patches, 'w');
    this.#asker = asker;
  }

  async look(states: readonly CrashState[]): Promise<(Found | Late)[]> {
    const all: (Found | Late)[] = [];
    while (all.length < states.length) {
      const together = this.#seenBy === this.#asker.life ? this.#asker.together : 1;
      const hand = states.slice(all.length, all.length + together);
      const { found, failed } = await this.#ask(hand);
      all.push(...found);
      if (failed === undefined) continue;
      if ('hung' in failed || hand.length === 1) all.push(failed);
      else all.push(...(await this.#oneByOne(hand.slice(found.length), failed)));
      if (all.some((one) => 'hung' in one)) break;
    }
    // There is no time for the rest.
    while (all.length < states.length) all.push({ hung: false });
    return all;
  }

  /** In one of these states the program has failed, and it does not show in which. */
  async #oneByOne(states: readonly CrashState[], failure: Found): Promise<(Found | Late)[]> {
    const all: (Found | Late)[] = [];
    let again = false;
    for (const state of states) {
      const { found, failed } = await this.#ask([state]);
      all.push(...found, ...(failed === undefined ? [] : [failed]));
      again ||= failed !== undefined;
      if (failed !== undefined && 'hung' in failed) break;
    }
    // Not seen again, and not to be passed over either.
    return again ? all : [failure, ...all.slice(1)];
  }

  /** Whole files for a program that has seen nothing; then what differs from the state before. */
  #ask(states: readonly CrashState[]): Promise<Asked> {
    const [first] = states;
    if (this.#seenBy !== this.#asker.life && first !== undefined) {
      this.#seenBy = this.#asker.life;
      for (const { bytes, path } of this.#files) {
        bytes.make(first);
        writeFileSync(path, bytes.bytes);
      }
      return this.#asker.ask(this.#paths, 1);
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
          bytes.make(state).map(([from, to]) => [from, to, put(bytes, from, to)]),
        ]),
      ),
    );
    for (let done = 0; done < end; ) done += writeSync(this.#fd, this.#buffer, done, end - done, done);
    return this.#asker.ask({ ...this.#paths, patches: this.#patches, states: steps }, states.length);
  }

  close(): void {
    closeSync(this.#fd);
  }
}

/** Mounts each state, which replays the journal of its filesystem. */
export class MountLooker implements Looker {
  readonly #disk: StateDisk;
  readonly #queue: string;
  readonly #asker: Asker;

  /** @param base holds the device as it is when the entries before `baseAt` are on the medium. */
  constructor(plan: MountPlan, recording: Recording, base: string, baseAt: number, asker: Asker) {
    const { queue, name: _, ...places } = plan;
    this.#disk = new StateDisk({ recording, base, baseAt, ...places });
    this.#queue = join(places.mountPoint, queue);
    this.#asker = asker;
  }

  async look(states: readonly CrashState[]): Promise<(Found | Late)[]> {
    const all: (Found | Late)[] = [];
    for (const state of states) {
      const found = all.some((one) => 'hung' in one) ? { hung: false } : await this.#lookAt(state);
      all.push(found);
    }
    return all;
  }

  async #lookAt(state: CrashState): Promise<Found | Late> {
    const refused = tryMount(this.#disk, state);
    if (refused !== undefined) return refused;
    try {
      const { found, failed } = await this.#asker.ask({ queue: this.#queue }, 1);
      return found[0] ?? failed ?? notRecovered('crashStates.restore gave no answer');
    } finally {
      this.#disk.unmount();
    }
  }

  close(): void {
    this.#disk.close();
  }
}

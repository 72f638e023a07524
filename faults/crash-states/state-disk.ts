import { closeSync, fstatSync, openSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { type Filesystem, mountOptionsOf } from '../power/filesystem.js';
import { attachLoop, detachLoop } from '../power/loop.js';
import type { MountLimits } from '../power/mount-options.js';
import { copySparse } from '../power/mounts.js';
import { cloneFile, flushDeviceCache, mountAt, unmountAt, waitUntilReleased } from '../power/syscalls.js';
import type { CrashState } from '../write-log/state.js';
import { applyWrites, type Recording } from './materialise.js';

/** The options of a `StateDisk`. */
export interface StateDiskOptions {
  recording: Recording;
  /**
   * Path of an image of the recorded disk on which the first `baseAt` writes and flushes of the log are done.
   * It is not changed.
   */
  base: string;
  baseAt: number;
  /**
   * Path of a file for the image with the writes that are certainly on the medium. It is on the filesystem of
   * `base`; copies are fastest if that filesystem can share blocks.
   */
  stable: string;
  /** Path of a file for the image of the current state, on the filesystem of `base`. */
  image: string;
  /** Path of the loop device that is already attached to `image`. */
  device: string;
  mountPoint: string;
  filesystem: Filesystem;
  /** What the files of the disk may not do. Default: as on the disk that was recorded. */
  limits?: MountLimits;
}

/**
 * Upper bound in ms for the release of an unmounted disk. A container that is being started needs
 * milliseconds.
 */
const RELEASE_TIMEOUT_MS = 1000;

/**
 * A disk that shows one crash state after the other at the same mount point. States should come in the order
 * of their cuts: writes that are certainly on the medium are then applied only once.
 */
export class StateDisk {
  readonly #options: StateDiskOptions;
  readonly #base: number;
  readonly #stable: number;
  #image: number;
  #device: number;
  #devicePath: string;
  /** Entries below this number are in the stable image. */
  #stableAt = Number.POSITIVE_INFINITY;
  #mounted = false;

  constructor(options: StateDiskOptions) {
    this.#options = options;
    this.#base = openSync(options.base, 'r');
    this.#stable = openSync(options.stable, 'r+');
    this.#image = openSync(options.image, 'r+');
    this.#device = openSync(options.device, 'r');
    this.#devicePath = options.device;
  }

  /**
   * Makes the disk of the state and mounts it. The mount replays the journal.
   * @throws DamagedFilesystemError when the kernel refuses the filesystem on the disk, and another Error when
   *   the disk cannot be made.
   */
  mount(state: CrashState): void {
    const { mountPoint, filesystem, limits } = this.#options;
    this.materialise(state);
    mountAt(this.#devicePath, mountPoint, filesystem.type, mountOptionsOf(filesystem), limits);
    this.#mounted = true;
  }

  /** Makes the disk of the state behind the device, without mounting it. */
  materialise(state: CrashState): void {
    const { recording, base, baseAt, stable, image } = this.#options;
    const { log, model } = recording;
    const durablePrefix = model.durablePrefixOf(state);
    if (durablePrefix < this.#stableAt) {
      cloneOrCopy(this.#base, this.#stable, base, stable);
      this.#stableAt = baseAt;
    }
    applyWrites(log, model.writes(this.#stableAt, durablePrefix), this.#stable);
    this.#stableAt = Math.max(this.#stableAt, durablePrefix);
    cloneOrCopy(this.#stable, this.#image, stable, image);
    applyWrites(log, model.appliedWrites(state, durablePrefix), this.#image);
    flushDeviceCache(this.#device);
  }

  /** Unmounts the disk, if it is mounted. */
  unmount(): void {
    if (!this.#mounted) return;
    unmountAt(this.#options.mountPoint);
    this.#mounted = false;
    if (!waitUntilReleased(this.#devicePath, RELEASE_TIMEOUT_MS)) this.#replaceDevice();
  }

  /**
   * Replaces the image and the device. Another mount namespace still holds the disk, for an unknown time, and
   * may write to it, so the next state must use another file and another device.
   */
  #replaceDevice(): void {
    const { image } = this.#options;
    const { size } = fstatSync(this.#image);
    for (const fd of [this.#image, this.#device]) closeSync(fd);
    detachLoop(this.#devicePath);
    rmSync(image);
    writeFileSync(image, '');
    truncateSync(image, size);
    this.#devicePath = attachLoop(image, 'dropped');
    this.#image = openSync(image, 'r+');
    this.#device = openSync(this.#devicePath, 'r');
  }

  /** Unmounts the disk and closes its files. */
  close(): void {
    this.unmount();
    for (const fd of [this.#base, this.#stable, this.#image, this.#device]) closeSync(fd);
  }
}

function cloneOrCopy(from: number, to: number, fromPath: string, toPath: string): void {
  if (!cloneFile(from, to)) copySparse(fromPath, toPath);
}

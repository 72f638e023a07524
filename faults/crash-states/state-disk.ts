import { closeSync, openSync } from 'node:fs';
import type { Filesystem } from '../power/filesystem.js';
import { copySparse } from '../power/sparse.js';
import { cloneFile, forgetCache, mountAt, unmountAt, waitReleased } from '../power/syscalls.js';
import { applyAll, type Recording } from './materialise.js';
import type { CrashState } from './state.js';

export interface StateDiskPlan {
  recording: Recording;
  /** The device as it is when the first `baseAt` entries are on the medium; is not changed. */
  base: string;
  baseAt: number;
  /** Two files on the filesystem of `base`, best one that shares blocks; `image` is behind `device` already. */
  stable: string;
  image: string;
  device: string;
  mountPoint: string;
  filesystem: Filesystem;
}

/**
 * Mounts one crash state after the other at the same place. States should come in the order of their cuts: what is on
 * the medium for certain is then written once for all.
 */
export class StateDisk {
  readonly #plan: StateDiskPlan;
  readonly #base: number;
  readonly #stable: number;
  readonly #image: number;
  readonly #device: number;
  /** Entries below this are in the stable image. */
  #stableAt = Number.POSITIVE_INFINITY;
  #mounted = false;

  constructor(plan: StateDiskPlan) {
    this.#plan = plan;
    this.#base = openSync(plan.base, 'r');
    this.#stable = openSync(plan.stable, 'r+');
    this.#image = openSync(plan.image, 'r+');
    this.#device = openSync(plan.device, 'r');
  }

  /** Makes the disk of the state and mounts it, which replays its journal. @throws Error when it cannot be mounted. */
  mount(state: CrashState): void {
    const { device, mountPoint, filesystem } = this.#plan;
    this.make(state);
    const options = ['nodiscard', filesystem.mountOptions].filter(Boolean).join(',');
    mountAt(device, mountPoint, filesystem.type, options);
    this.#mounted = true;
  }

  /** Makes the disk of the state behind the device, without mounting it. */
  make(state: CrashState): void {
    const { recording, base, baseAt, stable, image } = this.#plan;
    const { log, model } = recording;
    const floor = model.floorOf(state);
    if (floor < this.#stableAt) {
      copy(this.#base, this.#stable, base, stable);
      this.#stableAt = baseAt;
    }
    applyAll(log, model.writes(this.#stableAt, floor), this.#stable);
    this.#stableAt = Math.max(this.#stableAt, floor);
    copy(this.#stable, this.#image, stable, image);
    applyAll(log, model.applied(state, floor), this.#image);
    forgetCache(this.#device);
  }

  unmount(): void {
    if (!this.#mounted) return;
    unmountAt(this.#plan.mountPoint);
    waitReleased(this.#plan.device);
    this.#mounted = false;
  }

  close(): void {
    this.unmount();
    for (const fd of [this.#base, this.#stable, this.#image, this.#device]) closeSync(fd);
  }
}

function copy(from: number, to: number, fromPath: string, toPath: string): void {
  if (!cloneFile(from, to)) copySparse(fromPath, toPath);
}

import { chmodSync, mkdirSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { KitError, messageOf } from '../../../conformance/errors.js';
import { removeTree } from '../../../faults/files/remove-tree.js';
import {
  dropFilesystem,
  forceDropFilesystem,
  makeFilesystem,
  mountFilesystem,
} from '../../../faults/power/filesystem.js';
import { attachLoop, detachLoops } from '../../../faults/power/loop.js';
import { copySparse, unmount } from '../../../faults/power/mounts.js';
import { findProgram } from '../../../faults/programs.js';
import { atExit } from '../../host/at-exit.js';
import { makePassage, PASSAGE_MODE } from '../../host/directories.js';
import type { Resource } from '../../host/registry.js';

/** The part of `Registry` that a workspace uses. */
interface ResourceRegistry {
  made(resource: Resource): void;
  gone(resource: Resource): void;
}

/** The files, the device and the mount point with which one worker makes and mounts its states. */
export interface DiskSlot {
  /** Path of the image with the writes that are certainly on the medium; see `StateDisk`. */
  stable: string;
  /** Path of the image of the current state. */
  image: string;
  /** Loop device that is attached to `image`. */
  device: string;
  mountPoint: string;
}

/** Size of the filesystem for the images, in bytes. Only bytes that are written take memory. */
const STORE_SIZE_BYTES = 4 * 2 ** 30;

/**
 * The workspace in which crash states are made. With mkfs.xfs it has its own filesystem, whose files can
 * share blocks, so that a state costs no copy of the disk. Without mkfs.xfs the images are in the directory
 * itself, and every state is a sparse copy.
 */
export class StateWorkspace {
  /** Directory for the images of the disks. */
  readonly dir: string;
  /** Directory of the workspace. It is outside the workspace's own filesystem. */
  readonly root: string;
  readonly #registry: ResourceRegistry;
  readonly #undo: (() => void)[] = [];
  readonly #cancelAtExit = atExit(() => this.remove());

  /**
   * @param dir path of the workspace. It is created, and removed by `remove`. A tmpfs is fastest.
   * @throws KitError kit-failed when the workspace cannot be made.
   */
  constructor(dir: string, registry: ResourceRegistry) {
    this.#registry = registry;
    this.root = dir;
    this.#claim({ kind: 'directory', path: dir }, () => removeTree(dir));
    makePassage(dir);
    try {
      this.dir = findProgram('mkfs.xfs') === undefined ? dir : this.#mountStore(dir);
    } catch (error) {
      this.remove();
      throw this.#toKitError(error);
    }
  }

  /**
   * Wraps an error (no space, no loop device, no permission) in a KitError. Its message contains the message
   * of the tool that failed.
   */
  #toKitError(error: unknown): KitError {
    const message = `${this.root}: the disks of crash states cannot be made there: ${messageOf(error)}`;
    return new KitError('kit-failed', message, { cause: error });
  }

  /** Makes and mounts the filesystem for the images; returns its mount point. */
  #mountStore(dir: string): string {
    const image = join(dir, 'store.img');
    const mountPoint = join(dir, 'store');
    writeFileSync(image, '', { mode: 0o600 });
    truncateSync(image, STORE_SIZE_BYTES);
    makePassage(mountPoint);
    const store = { type: 'xfs', mountOptions: '' } as const;
    makeFilesystem(store, image);
    this.#claim({ kind: 'loop', path: image }, () => detachLoops(image));
    const device = attachLoop(image, 'dropped');
    this.#claim({ kind: 'mount', path: mountPoint }, () => {
      // Use force: another mount namespace may still hold loop devices on its files, and a normal unmount
      // would fail.
      forceDropFilesystem(mountPoint);
    });
    mountFilesystem(store, device, mountPoint, { noexec: true });
    // The root of the new filesystem hides the mode of the mount point.
    makePassage(mountPoint);
    return mountPoint;
  }

  /**
   * Makes the files, the device and the mount point with which one worker makes the states of a disk.
   * @param name name of the files; unique in the workspace.
   * @param base path of an image of the disk.
   * @throws KitError kit-failed when they cannot be made.
   */
  makeSlot(name: string, base: string): DiskSlot {
    try {
      return this.#makeSlot(name, base);
    } catch (error) {
      throw this.#toKitError(error);
    }
  }

  #makeSlot(name: string, base: string): DiskSlot {
    const file = (what: string) => join(this.dir, `${name}.${what}`);
    const slot = { stable: file('stable'), image: file('image'), mountPoint: file('mount') };
    copySparse(base, slot.stable);
    chmodSync(slot.stable, 0o600);
    writeFileSync(slot.image, '', { mode: 0o600 });
    truncateSync(slot.image, statSync(base).size);
    mkdirSync(slot.mountPoint, { mode: PASSAGE_MODE });
    this.#claim({ kind: 'loop', path: slot.image }, () => detachLoops(slot.image));
    const device = attachLoop(slot.image, 'dropped');
    this.#claim({ kind: 'mount', path: slot.mountPoint }, () => {
      dropFilesystem(slot.mountPoint);
      unmount(slot.mountPoint);
    });
    return { ...slot, device };
  }

  /** Registers a resource before it is made. `remove` runs `undo` and then marks the resource as gone. */
  #claim(resource: Resource, undo: () => void): void {
    this.#registry.made(resource);
    this.#undo.push(() => {
      undo();
      this.#registry.gone(resource);
    });
  }

  /**
   * Removes everything that the workspace has made: mounts, devices and files. It can be called from an exit
   * handler, and more than once. If one resource is still in use, all others are removed nevertheless.
   * @throws the first error.
   */
  remove(): void {
    this.#cancelAtExit();
    const failures: unknown[] = [];
    for (let undo = this.#undo.pop(); undo !== undefined; undo = this.#undo.pop()) {
      try {
        undo();
      } catch (error) {
        failures.push(error);
      }
    }
    if (failures.length > 0) throw failures[0];
  }
}

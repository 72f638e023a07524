import { mkdirSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { KitError, messageOf } from '../../../conformance/errors.js';
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
import type { Resource } from '../../host/registry.js';

interface ResourceRegistry {
  made(resource: Resource): void;
  gone(resource: Resource): void;
}

/** Where one worker makes and mounts its states. */
export interface DiskSlot {
  stable: string;
  image: string;
  device: string;
  mountPoint: string;
}

/** Room for the images; on it only what is written takes memory. */
const STORE_SIZE_BYTES = 4 * 2 ** 30;

/**
 * The places where crash states are made: on a filesystem in memory that lets files share their blocks, so that a state
 * costs no copy of the disk; where there is none, in the directory itself, and every state is a sparse copy.
 */
export class StateWorkspace {
  /** A directory for images. */
  readonly dir: string;
  /** The directory around it, on no filesystem of its own. */
  readonly root: string;
  readonly #registry: ResourceRegistry;
  readonly #undo: (() => void)[] = [];
  readonly #cancelAtExit = atExit(() => this.remove());

  /**
   * @param dir made, best in memory; removed in the end.
   * @throws KitError kit-failed
   */
  constructor(dir: string, residue: ResourceRegistry) {
    this.#registry = residue;
    this.root = dir;
    this.#claim({ kind: 'directory', path: dir }, () => rmSync(dir, { recursive: true, force: true }));
    mkdirSync(dir, { recursive: true });
    try {
      this.dir = findProgram('mkfs.xfs') === undefined ? dir : this.#mountStore(dir);
    } catch (error) {
      this.remove();
      throw this.#toKitError(error);
    }
  }

  /** No room, no loop device, no right to: in the words of the tool that found out. */
  #toKitError(error: unknown): KitError {
    const message = `${this.root}: the disks of crash states cannot be made there: ${messageOf(error)}`;
    return new KitError('kit-failed', message, { cause: error });
  }

  #mountStore(dir: string): string {
    const image = join(dir, 'store.img');
    const mountPoint = join(dir, 'store');
    writeFileSync(image, '');
    truncateSync(image, STORE_SIZE_BYTES);
    mkdirSync(mountPoint);
    const store = { type: 'xfs', mountOptions: '' } as const;
    makeFilesystem(store, image);
    this.#claim({ kind: 'loop', path: image }, () => detachLoops(image));
    const device = attachLoop(image, 'dropped');
    this.#claim({ kind: 'mount', path: mountPoint }, () => {
      // Devices over its files may still be held in another mount namespace.
      forceDropFilesystem(mountPoint);
    });
    mountFilesystem(store, device, mountPoint);
    return mountPoint;
  }

  /**
   * A place for states of a device.
   * @param base a file with the size of the device.
   * @throws KitError kit-failed
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
    writeFileSync(slot.image, '');
    truncateSync(slot.image, statSync(base).size);
    mkdirSync(slot.mountPoint);
    this.#claim({ kind: 'loop', path: slot.image }, () => detachLoops(slot.image));
    const device = attachLoop(slot.image, 'dropped');
    this.#claim({ kind: 'mount', path: slot.mountPoint }, () => {
      dropFilesystem(slot.mountPoint);
      unmount(slot.mountPoint);
    });
    return { ...slot, device };
  }

  /** Written down before it is made; crossed out when it is gone. */
  #claim(resource: Resource, undo: () => void): void {
    this.#registry.made(resource);
    this.#undo.push(() => {
      undo();
      this.#registry.gone(resource);
    });
  }

  /**
   * Removes all; works while the program exits, and may be called twice. What is still in use keeps nothing else.
   * @throws the first thing that went wrong.
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

import { mkdirSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { KitError, messageOf } from '../../../conformance/errors.js';
import {
  discardFilesystem,
  dropFilesystem,
  makeFilesystem,
  mountFilesystem,
} from '../../../faults/power/filesystem.js';
import { attachLoop, detachLoops } from '../../../faults/power/loop.js';
import { copySparse, unmount } from '../../../faults/power/mounts.js';
import { findProgram } from '../../../faults/programs.js';
import { atExit } from '../../host/at-exit.js';
import type { Resource } from '../../host/registry.js';

interface Residue {
  made(resource: Resource): void;
  gone(resource: Resource): void;
}

/** Where one worker makes and mounts its states. */
export interface Place {
  stable: string;
  image: string;
  device: string;
  mountPoint: string;
}

/** Room for the images; on it only what is written takes memory. */
const STORE_BYTES = 4 * 2 ** 30;

/**
 * The places where crash states are made: on a filesystem in memory that lets files share their blocks, so that a state
 * costs no copy of the disk; where there is none, in the directory itself, and every state is a sparse copy.
 */
export class Places {
  /** A directory for images. */
  readonly dir: string;
  /** The directory around it, on no filesystem of its own. */
  readonly root: string;
  readonly #residue: Residue;
  readonly #undo: (() => void)[] = [];
  readonly #forget = atExit(() => this.remove());

  /**
   * @param dir made, best in memory; removed in the end.
   * @throws KitError kit-failed
   */
  constructor(dir: string, residue: Residue) {
    this.#residue = residue;
    this.root = dir;
    this.#claim({ kind: 'directory', path: dir }, () => rmSync(dir, { recursive: true, force: true }));
    mkdirSync(dir, { recursive: true });
    try {
      this.dir = findProgram('mkfs.xfs') === undefined ? dir : this.#store(dir);
    } catch (error) {
      this.remove();
      throw this.#failure(error);
    }
  }

  /** No room, no loop device, no right to: in the words of the tool that found out. */
  #failure(error: unknown): KitError {
    const message = `${this.root}: the disks of crash states cannot be made there: ${messageOf(error)}`;
    return new KitError('kit-failed', message, { cause: error });
  }

  #store(dir: string): string {
    const image = join(dir, 'store.img');
    const mountPoint = join(dir, 'store');
    writeFileSync(image, '');
    truncateSync(image, STORE_BYTES);
    mkdirSync(mountPoint);
    const store = { type: 'xfs', mountOptions: '' } as const;
    makeFilesystem(store, image);
    this.#claim({ kind: 'loop', path: image }, () => detachLoops(image));
    const device = attachLoop(image, 'dropped');
    this.#claim({ kind: 'mount', path: mountPoint }, () => {
      // Devices over its files may still be held in another mount namespace.
      discardFilesystem(mountPoint);
    });
    mountFilesystem(store, device, mountPoint);
    return mountPoint;
  }

  /**
   * A place for states of a device.
   * @param base a file with the size of the device.
   * @throws KitError kit-failed
   */
  place(name: string, base: string): Place {
    try {
      return this.#place(name, base);
    } catch (error) {
      throw this.#failure(error);
    }
  }

  #place(name: string, base: string): Place {
    const file = (what: string) => join(this.dir, `${name}.${what}`);
    const place = { stable: file('stable'), image: file('image'), mountPoint: file('mount') };
    copySparse(base, place.stable);
    writeFileSync(place.image, '');
    truncateSync(place.image, statSync(base).size);
    mkdirSync(place.mountPoint);
    this.#claim({ kind: 'loop', path: place.image }, () => detachLoops(place.image));
    const device = attachLoop(place.image, 'dropped');
    this.#claim({ kind: 'mount', path: place.mountPoint }, () => {
      dropFilesystem(place.mountPoint);
      unmount(place.mountPoint);
    });
    return { ...place, device };
  }

  /** Written down before it is made; crossed out when it is gone. */
  #claim(resource: Resource, undo: () => void): void {
    this.#residue.made(resource);
    this.#undo.push(() => {
      undo();
      this.#residue.gone(resource);
    });
  }

  /**
   * Removes all; works while the program exits, and may be called twice. What is still in use keeps nothing else.
   * @throws the first thing that went wrong.
   */
  remove(): void {
    this.#forget();
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

import { mkdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { CutReport, DiskStall, PowerDisk, WriteErrorInjector } from '../fault.js';
import { removeTree } from '../files/remove-tree.js';
import { dropFilesystem, type Filesystem } from './filesystem.js';
import { FlakeyDisk } from './flakey.js';
import { localHost } from './host.js';
import { attachLoop, detachLoops } from './loop.js';
import { type PowerResource, type PowerResourceRegistry, runTool } from './mounts.js';

/** The options of `LocalFlakeyDisk.create`. */
export interface LocalFlakeyDiskOptions {
  /** Directory for the image. It is created, and removed by `remove`. */
  dir: string;
  /** Name of the device below /dev/mapper; it contains the run's id. */
  name: string;
  mountPoint: string;
  sizeBytes: number;
  filesystem: Filesystem;
  registry: PowerResourceRegistry;
}

/** A disk behind dm-flakey in the kernel of this machine. Its bytes are in a file. */
export class LocalFlakeyDisk implements PowerDisk {
  readonly backend = 'flakey';
  readonly killsTarget = false;
  readonly #options: LocalFlakeyDiskOptions;
  readonly #image: string;
  readonly #resources: PowerResource[];
  #disk: FlakeyDisk | undefined;

  private constructor(options: LocalFlakeyDiskOptions) {
    this.#options = options;
    this.#image = join(options.dir, 'disk.img');
    // In the order of creation. They are removed in reverse order.
    this.#resources = [
      { kind: 'directory', path: options.dir },
      { kind: 'loop', path: this.#image },
      { kind: 'mapping', path: mappingPath(options.name) },
      { kind: 'mount', path: options.mountPoint },
    ];
  }

  /**
   * Creates the disk with an empty filesystem and mounts it.
   * @throws Error with the message of the tool that failed.
   */
  static async create(options: LocalFlakeyDiskOptions): Promise<LocalFlakeyDisk> {
    const disk = new LocalFlakeyDisk(options);
    for (const resource of disk.#resources) options.registry.made(resource);
    try {
      mkdirSync(options.dir, { recursive: true, mode: 0o700 });
      writeFileSync(disk.#image, '');
      truncateSync(disk.#image, options.sizeBytes);
      const { name, mountPoint, filesystem } = options;
      const device = attachLoop(disk.#image);
      disk.#disk = await FlakeyDisk.create({ host: localHost, device, name, mountPoint, filesystem });
    } catch (error) {
      disk.remove();
      throw error;
    }
    return disk;
  }

  stop(): Promise<number> {
    this.#noteStopping();
    return this.#requireDisk().stop();
  }

  readonly stall: DiskStall = {
    begin: () => {
      this.#noteStopping();
      return this.#requireDisk().stall.begin();
    },
    end: async () => {
      try {
        await this.#requireDisk().stall.end();
      } finally {
        this.#noteResumed();
      }
    },
  };

  #noteStopping(): void {
    this.#options.registry.stopping?.({ kind: 'mapping', path: mappingPath(this.#options.name) });
  }

  #noteResumed(): void {
    this.#options.registry.resumed?.({ kind: 'mapping', path: mappingPath(this.#options.name) });
  }

  async resume(): Promise<void> {
    try {
      await this.#requireDisk().resume();
    } finally {
      this.#noteResumed();
    }
  }

  cut(): Promise<CutReport> {
    return this.#requireDisk().cut();
  }

  get writeErrors(): WriteErrorInjector {
    return this.#requireDisk().writeErrors;
  }

  /**
   * Removes everything. It can be called in any state, more than once, and from an exit handler, because it
   * does not need the event loop.
   */
  remove(): void {
    removeMapping(mappingPath(this.#options.name), () => dropFilesystem(this.#options.mountPoint));
    detachLoops(this.#image);
    removeTree(this.#options.dir);
    for (const resource of [...this.#resources].reverse()) this.#options.registry.gone(resource);
  }

  #requireDisk(): FlakeyDisk {
    if (this.#disk === undefined) throw new Error('the disk was not made');
    return this.#disk;
  }
}

function mappingPath(name: string): string {
  return `/dev/mapper/${name}`;
}

/**
 * Removes a device of the device mapper.
 * @param path path of the device: `/dev/mapper/NAME`.
 * @param unmount unmounts the filesystem on it. A suspended device is resumed before, because an unmount
 *   would hang.
 * @returns true when there was a device.
 */
export function removeMapping(path: string, unmount: () => void = () => {}): boolean {
  const name = path.replace('/dev/mapper/', '');
  if (!isMapped(name)) {
    unmount();
    rmSync(path, { force: true });
    return false;
  }
  // A kit that died between `stop` and `resume` has left the device suspended: every access to it would hang.
  runTool('dmsetup', ['resume', '--noudevsync', name]);
  unmount();
  runTool('dmsetup', ['remove', '--retry', '--noudevsync', name]);
  // Without udev the node is not removed together with the device, so remove it here.
  rmSync(path, { force: true });
  return true;
}

function isMapped(name: string): boolean {
  try {
    runTool('dmsetup', ['info', '--noheadings', '--columns', name]);
    return true;
  } catch {
    return false;
  }
}

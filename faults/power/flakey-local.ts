import { mkdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { CutReport, PowerDisk, WriteErrorInjector } from '../fault.js';
import { dropFilesystem, type Filesystem } from './filesystem.js';
import { FlakeyDisk } from './flakey.js';
import { localHost } from './host.js';
import { attachLoop, detachLoops } from './loop.js';
import { type PowerResource, type PowerResourceRegistry, runTool } from './mounts.js';

export interface LocalFlakeyDiskOptions {
  /** Holds the image; made, and removed in the end. */
  dir: string;
  /** Of the device below /dev/mapper; carries the run's id. */
  name: string;
  mountPoint: string;
  sizeBytes: number;
  filesystem: Filesystem;
  registry: PowerResourceRegistry;
}

/** A disk behind dm-flakey on this machine's own kernel, over a file. */
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
    // In the order in which they are made; they are removed the other way round.
    this.#resources = [
      { kind: 'directory', path: options.dir },
      { kind: 'loop', path: this.#image },
      { kind: 'mapping', path: mappingPath(options.name) },
      { kind: 'mount', path: options.mountPoint },
    ];
  }

  /** @throws Error with the words of the tool that failed. */
  static async create(options: LocalFlakeyDiskOptions): Promise<LocalFlakeyDisk> {
    const disk = new LocalFlakeyDisk(options);
    for (const resource of disk.#resources) options.registry.made(resource);
    try {
      mkdirSync(options.dir, { recursive: true });
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
    return this.#requireDisk().stop();
  }

  resume(): Promise<void> {
    return this.#requireDisk().resume();
  }

  cut(): Promise<CutReport> {
    return this.#requireDisk().cut();
  }

  get writeErrors(): WriteErrorInjector {
    return this.#requireDisk().writeErrors;
  }

  /** Removes all of it; works in any state, may be called twice, and does not need the event loop. */
  remove(): void {
    removeMapping(mappingPath(this.#options.name), () => dropFilesystem(this.#options.mountPoint));
    detachLoops(this.#image);
    rmSync(this.#options.dir, { recursive: true, force: true });
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
 * Removes a device of the device mapper; true when there was one.
 * @param path below /dev/mapper.
 * @param unmount takes away what is mounted from it; a device that stands still is let go before.
 */
export function removeMapping(path: string, unmount: () => void = () => {}): boolean {
  const name = path.replace('/dev/mapper/', '');
  if (!isMapped(name)) {
    unmount();
    rmSync(path, { force: true });
    return false;
  }
  // A kit that died between `stop` and `resume` has left it standing still, and whatever touches it waits.
  runTool('dmsetup', ['resume', '--noudevsync', name]);
  unmount();
  runTool('dmsetup', ['remove', '--retry', '--noudevsync', name]);
  // Without udev nobody takes the node away, so the node does not say whether there is a device.
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

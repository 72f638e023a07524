import { mkdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { CutReport, FailingWrites, PowerDisk } from '../fault.js';
import { dropFilesystem, type Filesystem } from './filesystem.js';
import { FlakeyDisk } from './flakey.js';
import { localHost } from './host.js';
import { attachLoop, detachLoops } from './loop.js';
import { type PowerResource, type Residue, runTool } from './mounts.js';

export interface LocalFlakeyPlan {
  /** Holds the image; made, and removed in the end. */
  dir: string;
  /** Of the device below /dev/mapper; carries the run's id. */
  name: string;
  mountPoint: string;
  sizeBytes: number;
  filesystem: Filesystem;
  residue: Residue;
}

/** A disk behind dm-flakey on this machine's own kernel, over a file. */
export class LocalFlakeyDisk implements PowerDisk {
  readonly backend = 'flakey';
  readonly endsTarget = false;
  readonly #plan: LocalFlakeyPlan;
  readonly #image: string;
  readonly #resources: PowerResource[];
  #disk: FlakeyDisk | undefined;

  private constructor(plan: LocalFlakeyPlan) {
    this.#plan = plan;
    this.#image = join(plan.dir, 'disk.img');
    // In the order in which they are made; they are removed the other way round.
    this.#resources = [
      { kind: 'directory', path: plan.dir },
      { kind: 'loop', path: this.#image },
      { kind: 'mapping', path: mappingPath(plan.name) },
      { kind: 'mount', path: plan.mountPoint },
    ];
  }

  /** @throws Error with the words of the tool that failed. */
  static async create(plan: LocalFlakeyPlan): Promise<LocalFlakeyDisk> {
    const disk = new LocalFlakeyDisk(plan);
    for (const resource of disk.#resources) plan.residue.made(resource);
    try {
      mkdirSync(plan.dir, { recursive: true });
      writeFileSync(disk.#image, '');
      truncateSync(disk.#image, plan.sizeBytes);
      const { name, mountPoint, filesystem } = plan;
      const device = attachLoop(disk.#image);
      disk.#disk = await FlakeyDisk.create({ host: localHost, device, name, mountPoint, filesystem });
    } catch (error) {
      disk.remove();
      throw error;
    }
    return disk;
  }

  stop(): Promise<number> {
    return this.#made().stop();
  }

  resume(): Promise<void> {
    return this.#made().resume();
  }

  cut(): Promise<CutReport> {
    return this.#made().cut();
  }

  get failingWrites(): FailingWrites {
    return this.#made().failingWrites;
  }

  /** Removes all of it; works in any state, may be called twice, and does not need the event loop. */
  remove(): void {
    removeMapping(mappingPath(this.#plan.name), () => dropFilesystem(this.#plan.mountPoint));
    detachLoops(this.#image);
    rmSync(this.#plan.dir, { recursive: true, force: true });
    for (const resource of [...this.#resources].reverse()) this.#plan.residue.gone(resource);
  }

  #made(): FlakeyDisk {
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

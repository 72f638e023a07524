import type { Needs, PowerDisk } from '../../faults/fault.js';

/** Kind of disk that the faults of a round need. */
export type DiskKind = Needs['disk'];

/** The disk that holds the directory under test. */
export interface Disk {
  /** The directory under test (`{data}`). */
  dataDir: string;
  /** The disk as a fault uses it; undefined when its power cannot be cut. */
  power: PowerDisk | undefined;
  /** Removes the disk with its content. It can be called from an exit handler, and more than once. */
  remove(): void;
  /** Moves the content to a permanent path (from another machine: as an archive), and removes the rest. */
  saveTo(to: string): void | Promise<void>;
}

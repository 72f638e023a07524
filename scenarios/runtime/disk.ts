import type { Needs, PowerDisk } from '../../faults/fault.js';

export type DiskKind = Needs['disk'];

/** The directory that faults are done to, and how to get rid of it. */
export interface Disk {
  dataDir: string;
  /** Where its power can be cut. */
  power: PowerDisk | undefined;
  /** Removes it with all that is in it; may be called twice, and works while the program exits. */
  remove(): void;
  /** Moves what is in it to a place where it stays (another machine's: as an archive), and removes the rest. */
  saveTo(to: string): void | Promise<void>;
}

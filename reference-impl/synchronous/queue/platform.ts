import { IndexImage } from '../index/image.js';
import type { Geometry } from '../index/layout.js';
import type { DataBytes } from '../platform/data-map.js';
import type { Kernel } from '../platform/kernel.js';
import { linux } from '../platform/linux.js';
import type { ChecksumKey } from '../record/checksum.js';
import type { SlotReader } from '../restore/scan.js';

/** What a process of the queue stands on. */
export interface Platform {
  kernel: Kernel;
  /** How this process sees the mapped index; a simulated process may die between any two stores of it. */
  createImage(bytes: Buffer, geometry: Geometry): IndexImage;
  /** For a restore by a process that has made others of nearly the same files before. */
  createSlotReader?: (data: DataBytes, key: ChecksumKey) => SlotReader;
}

/** The machine that this process runs on. */
export const hostPlatform: Platform = {
  kernel: linux,
  createImage: (bytes, geometry) => new IndexImage(bytes, geometry),
};

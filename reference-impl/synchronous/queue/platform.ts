import type { DataBytes } from '../../common/platform/data-map.js';
import type { Kernel } from '../../common/platform/kernel.js';
import { linux } from '../../common/platform/linux.js';
import type { ChecksumKey } from '../../common/record/checksum.js';
import { IndexImage } from '../index/image.js';
import type { Geometry } from '../index/layout.js';
import type { SlotReader } from '../restore/scan.js';

/** The machine below a process of the queue, real or simulated. */
export interface Platform {
  kernel: Kernel;
  /**
   * Makes this process's view of the mapped index. A simulated process may die between any two stores of the
   * view.
   */
  createImage(bytes: Buffer, geometry: Geometry): IndexImage;
  /**
   * Makes a slot reader for a restore. A process that restores many nearly equal files passes one that reuses
   * what it has read before. Without it, the restore reads every slot.
   */
  createSlotReader?: (data: DataBytes, key: ChecksumKey) => SlotReader;
}

/** The real machine on which this process runs. */
export const hostPlatform: Platform = {
  kernel: linux,
  createImage: (bytes, geometry) => new IndexImage(bytes, geometry),
};

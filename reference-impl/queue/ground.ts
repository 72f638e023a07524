import { IndexImage } from '../index/image.js';
import type { Geometry } from '../index/layout.js';
import type { Kernel } from '../memory/kernel.js';
import { linux } from '../memory/linux.js';

/** What a process of the queue stands on. */
export interface Ground {
  kernel: Kernel;
  /** How this process sees the mapped index; a simulated process may die between any two stores of it. */
  image(bytes: Buffer, geometry: Geometry): IndexImage;
}

/** The machine that this process runs on. */
export const machine: Ground = {
  kernel: linux,
  image: (bytes, geometry) => new IndexImage(bytes, geometry),
};

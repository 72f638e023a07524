import type { ProcessLifetime } from '../../common/simulation/process-lifetime.js';
import { IndexImage } from '../index/image.js';
import type { Geometry } from '../index/layout.js';

/** The index in shared memory for a process that can be killed before each of its stores. */
export class SteppedImage extends IndexImage {
  readonly #lifetime: ProcessLifetime;

  constructor(bytes: Uint8Array, geometry: Geometry, lifetime: ProcessLifetime) {
    super(bytes, geometry);
    this.#lifetime = lifetime;
  }

  override put(word: number, value: number): void {
    this.#lifetime.step();
    super.put(word, value);
  }

  override add(word: number, value: number): number {
    this.#lifetime.step();
    return super.add(word, value);
  }
}

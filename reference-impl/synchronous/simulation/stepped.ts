import { IndexImage } from '../index/image.js';
import type { Geometry } from '../index/layout.js';
import type { Life } from './life.js';

/** The index in shared memory as a process sees it that can be killed in front of each of its stores. */
export class SteppedImage extends IndexImage {
  readonly #life: Life;

  constructor(bytes: Uint8Array, geometry: Geometry, life: Life) {
    super(bytes, geometry);
    this.#life = life;
  }

  override put(word: number, value: number): void {
    this.#life.step();
    super.put(word, value);
  }

  override add(word: number, value: number): number {
    this.#life.step();
    return super.add(word, value);
  }
}

interface Stepped extends Buffer {
  life: Life;
}

const plain = Buffer.prototype;

/** The stores that the queue does into the mapped data file; a copy that is cut short leaves its first half. */
const stores = {
  writeUInt8(this: Stepped, value: number, at?: number): number {
    this.life.step();
    return plain.writeUInt8.call(this, value, at);
  },
  writeUInt32LE(this: Stepped, value: number, at?: number): number {
    this.life.step();
    return plain.writeUInt32LE.call(this, value, at);
  },
  writeBigUInt64LE(this: Stepped, value: bigint, at?: number): number {
    this.life.step();
    return plain.writeBigUInt64LE.call(this, value, at);
  },
  write(this: Stepped, text: string, at?: number): number {
    this.life.step();
    return plain.write.call(this, text, at as number);
  },
  set(this: Stepped, from: Uint8Array, at?: number): void {
    if (this.life.isLast) plain.set.call(this, from.subarray(0, from.length >> 1), at);
    this.life.step();
    plain.set.call(this, from, at);
  },
};

const prototype: object = Object.setPrototypeOf(stores, plain);

/** `memory` itself, not a copy, with every store into it a step of `life`. */
export function stepped(memory: Buffer, life: Life): Buffer {
  const view = Buffer.from(memory.buffer, memory.byteOffset, memory.length) as Stepped;
  Object.setPrototypeOf(view, prototype);
  view.life = life;
  return view;
}

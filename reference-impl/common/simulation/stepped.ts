import type { ProcessLifetime } from './process-lifetime.js';

interface Stepped extends Buffer {
  lifetime: ProcessLifetime;
}

const plain = Buffer.prototype;

/**
 * The stores of the queue into the mapped data file. If the process dies before
 * `set`, the first half is copied.
 */
const stores = {
  writeUInt8(this: Stepped, value: number, at?: number): number {
    this.lifetime.step();
    return plain.writeUInt8.call(this, value, at);
  },
  writeUInt32LE(this: Stepped, value: number, at?: number): number {
    this.lifetime.step();
    return plain.writeUInt32LE.call(this, value, at);
  },
  writeBigUInt64LE(this: Stepped, value: bigint, at?: number): number {
    this.lifetime.step();
    return plain.writeBigUInt64LE.call(this, value, at);
  },
  write(this: Stepped, text: string, at?: number): number {
    this.lifetime.step();
    return plain.write.call(this, text, at as number);
  },
  set(this: Stepped, from: Uint8Array, at?: number): void {
    if (this.lifetime.isNextStepFatal) plain.set.call(this, from.subarray(0, from.length >> 1), at);
    this.lifetime.step();
    plain.set.call(this, from, at);
  },
};

const prototype: object = Object.setPrototypeOf(stores, plain);

/** Returns a view of `memory`, not a copy, in which every store is a step of `lifetime`. */
export function stepped(memory: Buffer, lifetime: ProcessLifetime): Buffer {
  const view = Buffer.from(memory.buffer, memory.byteOffset, memory.length) as Stepped;
  Object.setPrototypeOf(view, prototype);
  view.lifetime = lifetime;
  return view;
}

import type { DataBytes, MappedRange } from './data-map.js';
import { assert } from './errors.js';

/** A data file in plain memory. */
export class MemoryData implements DataBytes {
  readonly bytes: Buffer;

  constructor(bytes: number | Buffer) {
    this.bytes = typeof bytes === 'number' ? Buffer.alloc(bytes) : bytes;
  }

  get sizeBytes(): number {
    return this.bytes.length;
  }

  locate(offset: number, length: number): MappedRange {
    assert(
      offset >= 0 && length >= 0 && offset + length <= this.sizeBytes,
      'access stays within the data file',
    );
    return { bytes: this.bytes, at: offset };
  }

  willNeed(): void {}
}

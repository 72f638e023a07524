import { type ChecksumKey, seedOf } from '../../common/record/checksum.js';
import { SLOT_BYTES } from './layout.js';

/** Returns the initial state of the CRC for a record at `offset` of the data file. */
export const seedAt = (key: ChecksumKey, offset: number): number => seedOf(key, offset / SLOT_BYTES);

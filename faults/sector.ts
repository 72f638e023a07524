/** Size of a sector in bytes: the unit that a disk writes as a whole, and that a power cut keeps or loses as a whole. */
export const SECTOR_BYTES = 512;

/**
 * Size of a sector in bytes. A disk writes a sector as a whole, and a power cut keeps or loses it as a whole.
 */
export const SECTOR_BYTES = 512;

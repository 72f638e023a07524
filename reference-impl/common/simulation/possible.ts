import { PAGE_BYTES } from '../platform/map.js';
import { SimMachine } from './machine.js';
import { SECTOR_BYTES } from './medium.js';

/**
 * An operation on a file. Pages and sectors are counted from 0. `value` fills the sector, and `pages` is a
 * number of pages.
 */
export type FileOperation =
  | { do: 'store'; page: number; sector: number; value: number }
  | { do: 'msync' | 'write-back'; page: number; pages: number };

const PATH = '/file';

/**
 * Computes the values that each sector may have after a power cut that follows the given operations on a file
 * of zeros.
 * @returns for each sector of the file the list of its possible values, oldest version first
 */
export function possibleSectors(pages: number, operations: readonly FileOperation[]): number[][] {
  const machine = new SimMachine(() => 0);
  machine.create(PATH);
  const file = machine.file(PATH);
  if (!file) throw new Error('a file that was made is there');
  file.resize(pages * PAGE_BYTES);
  for (const operation of operations) {
    if (operation.do === 'store') {
      const at = operation.page * PAGE_BYTES + operation.sector * SECTOR_BYTES;
      file.cache.fill(operation.value, at, at + SECTOR_BYTES);
      continue;
    }
    const end = operation.page + operation.pages;
    if (operation.do === 'msync') machine.sync(PATH, file, operation.page, end);
    else for (const page of file.dirtyPages(operation.page, end)) file.writeBack(page);
  }
  const unflushed = file.versions();
  const sectors: number[][] = [];
  for (let at = 0; at < pages * PAGE_BYTES; at += SECTOR_BYTES) {
    const page = Math.floor(at / PAGE_BYTES);
    const versions = unflushed.get(page) ?? [file.cache.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES)];
    sectors.push(versions.map((bytes) => bytes.readUInt8(at % PAGE_BYTES)));
  }
  return sectors;
}

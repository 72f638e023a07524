import type { Kernel } from '../platform/kernel.js';
import { PAGE_BYTES } from '../platform/map.js';
import type { IndexImage } from './image.js';
import { FIELD } from './layout.js';

/**
 * To be called before the index file is synced, and `endIndexSync` when that has succeeded, and only then. After a sync
 * that failed the kernel takes the pages for clean: the next one succeeds without writing them, and would vouch for
 * consumptions that are not on the disk. So whoever finds that the last sync did not end, because it failed or because its
 * process was killed, makes every page dirty again first.
 */
export function beginIndexSync(image: IndexImage, kernel: Kernel): void {
  const { words } = image;
  if (image.get(FIELD.indexSyncing) !== 0) {
    const bytes = Buffer.from(words.buffer, words.byteOffset, words.byteLength);
    for (let at = 0; at < bytes.length; at += PAGE_BYTES) kernel.touch(bytes, at);
  }
  image.put(FIELD.indexSyncing, 1);
}

export function endIndexSync(image: IndexImage): void {
  image.put(FIELD.indexSyncing, 0);
}

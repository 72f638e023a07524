import {
  closeSync,
  copyFileSync,
  existsSync,
  openSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeSync,
} from 'node:fs';
import type { Random } from '../fault.js';
import { flipBit } from '../files/flip.js';
import { spread } from '../random-choice.js';

const LOST = ['removed', 'emptied', 'all garbage'] as const;
const DAMAGED = ['truncated', 'bits flipped', 'garbage', 'old copy', 'some pages old'] as const;

export type Way = (typeof LOST)[number] | (typeof DAMAGED)[number];

/** Who has lost the index knows that; who has a wrong one may believe it, and that is tried more often. */
export function pickWay(random: Random): Way {
  return random.int(4) === 0 ? random.pick(LOST) : random.pick(DAMAGED);
}

const MOST_FLIPS = 64;
const MOST_GARBAGE_BYTES = 64 * 1024;
const HEADER_BYTES = 4096;
const PAGE_BYTES = 4096;
const BLOCK_BYTES = 64;

/** A file to damage, and a copy of it as it was earlier in the round; the copy may be missing. */
export interface Victim {
  path: string;
  earlier: string;
}

/** Damages a file in one way; a few words that say how, or undefined when there was nothing to do it to. */
export function damage({ path, earlier }: Victim, way: Way, random: Random): string | undefined {
  if (way === 'removed') {
    rmSync(path);
    return 'removed';
  }
  if (way === 'old copy') {
    if (!existsSync(earlier)) return undefined;
    copyFileSync(earlier, path);
    return 'put back to an old copy';
  }
  const now = readFileSync(path);
  if (now.length === 0) return undefined;
  const before = existsSync(earlier) ? readFileSync(earlier) : Buffer.alloc(0);
  switch (way) {
    case 'emptied':
      truncateSync(path, 0);
      return 'emptied';
    case 'truncated': {
      const keep = aimAt(random, now, before)();
      truncateSync(path, keep);
      return `truncated to ${keep} of ${now.length} bytes`;
    }
    case 'bits flipped': {
      const flips = spread(random, 1, MOST_FLIPS);
      const offsets = Array.from({ length: flips }, aimAt(random, now, before));
      for (const offset of offsets) flipBit(path, offset, random.int(8));
      return `with a bit flipped at ${offsets.join(', ')}`;
    }
    case 'garbage': {
      const start = aimAt(random, now, before)();
      const length = Math.min(now.length - start, spread(random, 1, MOST_GARBAGE_BYTES));
      overwrite(path, [start], now.length, () => garbage(random, length));
      return `with ${length} bytes of garbage at ${start}`;
    }
    case 'all garbage': {
      const block = garbage(random, MOST_GARBAGE_BYTES);
      const starts = Array.from({ length: Math.ceil(now.length / block.length) }, (_, n) => n * block.length);
      overwrite(path, starts, now.length, () => block);
      return `with all ${now.length} bytes garbage`;
    }
    case 'some pages old': {
      const pages = changedBlocks(now, before, PAGE_BYTES);
      const one = pages[random.int(Math.max(pages.length, 1))];
      const chosen =
        random.int(2) === 0 ? pages.filter((page) => page === one) : pages.filter(() => random.int(2) === 0);
      if (chosen.length === 0) return undefined;
      overwrite(path, chosen, now.length, (start) => before.subarray(start, start + PAGE_BYTES));
      return `with ${chosen.length} of ${pages.length} changed pages put back, at ${chosen.join(', ')}`;
    }
  }
}

/**
 * Offsets of one kind: near the start, where a header is likely, anywhere, or where the file has changed and so is in
 * use. One damage has one kind: a header that is wrong too would hide what becomes of the rest.
 */
function aimAt(random: Random, now: Buffer, before: Buffer): () => number {
  const kind = random.int(4);
  if (kind === 0) return () => random.int(Math.min(now.length, HEADER_BYTES));
  const used = kind === 1 ? [] : changedBlocks(now, before, BLOCK_BYTES).filter((at) => at >= HEADER_BYTES);
  if (used.length === 0) return () => random.int(now.length);
  return () => Math.min(now.length - 1, random.pick(used) + random.int(BLOCK_BYTES));
}

/** Offsets of the blocks that are not now as they were before. */
function changedBlocks(now: Buffer, before: Buffer, blockBytes: number): number[] {
  const blocks: number[] = [];
  for (let at = 0; at < Math.min(now.length, before.length); at += blockBytes) {
    const [nowEnd, beforeEnd] = [now.length, before.length].map((length) =>
      Math.min(at + blockBytes, length),
    );
    if (now.compare(before, at, beforeEnd, at, nowEnd) !== 0) blocks.push(at);
  }
  return blocks;
}

function garbage(random: Random, length: number): Buffer {
  return Buffer.from(Array.from({ length }, () => random.int(256)));
}

/** Writes at each of the offsets, never beyond `sizeBytes`. */
function overwrite(
  path: string,
  starts: readonly number[],
  sizeBytes: number,
  bytesAt: (start: number) => Buffer,
): void {
  const file = openSync(path, 'r+');
  try {
    for (const start of starts) {
      const bytes = bytesAt(start);
      writeSync(file, bytes, 0, Math.min(bytes.length, Math.max(sizeBytes - start, 0)), start);
    }
  } finally {
    closeSync(file);
  }
}

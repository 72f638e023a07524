import {
  constants,
  copyFileSync,
  existsSync,
  ftruncateSync,
  mkdirSync,
  readFileSync,
  writeSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import type { Fault, FaultContext, Injection, Random } from '../fault.js';
import { descriptorPath, removeBelow, unlessGone, withFileBelow } from '../files/open-below.js';
import { filesMatching, flipBit } from '../files/walk.js';
import { hit, miss } from '../injection.js';
import { AVAILABLE } from '../programs.js';
import { logUniformInt } from '../random-choice.js';

const COPIES_AT_START = 'index-at-start';
const COPIES_AT_LAST_LOSS = 'index-at-last-loss';

/**
 * Removes or damages files that the target can rebuild, while the target is down. Copies are saved at the
 * start of the round and before each damage: an old state that comes back is one of these copies.
 */
export const indexLoss: Fault = {
  name: 'index-loss',
  family: 'index-loss',
  summary: 'the index removed, cut, damaged or put back to an old state while down: it can be rebuilt',
  needs: { target: 'down', disk: 'any' },
  actsOnStoredData: true,
  available: async () => AVAILABLE,
  async prepare(context: FaultContext): Promise<void> {
    for (const folder of [COPIES_AT_START, COPIES_AT_LAST_LOSS]) saveCopies(context, folder);
  },
  async inject(context: FaultContext): Promise<Injection> {
    const files = filesMatching(context.dataDir, context.indexFiles);
    if (files.length === 0) {
      const why = context.indexFiles.length === 0 ? 'the target names none' : context.indexFiles.join(', ');
      return miss(`no index file was found (${why})`);
    }
    const damageKind = pickDamageKind(context.random);
    const copies = join(context.scratchDir, context.random.pick([COPIES_AT_START, COPIES_AT_LAST_LOSS]));
    const damages: string[] = [];
    for (const file of files) {
      const victim = { directory: context.dataDir, file, earlierCopy: join(copies, file) };
      const before = join(context.scratchDir, 'index-now', file);
      const what = unlessGone(() => {
        saveCopy(context.dataDir, file, before);
        return damage(victim, damageKind, context.random);
      });
      if (existsSync(before)) copyTo(before, join(context.scratchDir, COPIES_AT_LAST_LOSS, file));
      if (what !== undefined) damages.push(`${file} ${what}`);
    }
    if (damages.length === 0) return miss(`index ${damageKind}: nothing to change in ${files.join(', ')}`);
    return { ...hit(`index ${damages.join('; ')}`, 'none', []), indexDamaged: true };
  },
  heal: async () => {},
};

function saveCopies(context: FaultContext, folder: string): void {
  for (const file of filesMatching(context.dataDir, context.indexFiles)) {
    unlessGone(() => saveCopy(context.dataDir, file, join(context.scratchDir, folder, file)));
  }
}

function saveCopy(directory: string, file: string, to: string): void {
  withFileBelow(directory, file, constants.O_RDONLY, (fd) => copyTo(descriptorPath(fd), to));
}

function copyTo(from: string, to: string): void {
  mkdirSync(dirname(to), { recursive: true });
  copyFileSync(from, to, constants.COPYFILE_FICLONE);
}

const LOSS_KINDS = ['removed', 'emptied', 'all garbage'] as const;
const CORRUPTION_KINDS = ['truncated', 'bits flipped', 'garbage', 'old copy', 'some pages old'] as const;

type DamageKind = (typeof LOSS_KINDS)[number] | (typeof CORRUPTION_KINDS)[number];

/** Prefers corruption to loss: a target notices a missing index, but it may trust a wrong one. */
function pickDamageKind(random: Random): DamageKind {
  return random.int(4) === 0 ? random.pick(LOSS_KINDS) : random.pick(CORRUPTION_KINDS);
}

const MAX_FLIPS = 64;
const MAX_GARBAGE_BYTES = 64 * 1024;
const HEADER_BYTES = 4096;
const PAGE_BYTES = 4096;
const BLOCK_BYTES = 64;

/** A file to damage, and the path of a copy from earlier in the round. The copy may be missing. */
interface Victim {
  /** The directory under test. */
  directory: string;
  /** Path of the file, relative to the directory. */
  file: string;
  earlierCopy: string;
}

/**
 * Damages a file in one way. Returns a short text about the damage, or undefined when nothing could be
 * changed.
 */
function damage(victim: Victim, kind: DamageKind, random: Random): string | undefined {
  const { directory, file } = victim;
  if (kind === 'removed') {
    removeBelow(directory, file);
    return 'removed';
  }
  return withFileBelow(directory, file, constants.O_RDWR, (fd) => damageOpen(fd, victim, kind, random));
}

/** @param fd descriptor of the file, open for reading and writing. */
function damageOpen(
  fd: number,
  { directory, file, earlierCopy }: Victim,
  kind: Exclude<DamageKind, 'removed'>,
  random: Random,
): string | undefined {
  if (kind === 'old copy') {
    if (!existsSync(earlierCopy)) return undefined;
    copyFileSync(earlierCopy, descriptorPath(fd));
    return 'put back to an old copy';
  }
  const now = readFileSync(fd);
  if (now.length === 0) return undefined;
  const before = existsSync(earlierCopy) ? readFileSync(earlierCopy) : Buffer.alloc(0);
  switch (kind) {
    case 'emptied':
      ftruncateSync(fd, 0);
      return 'emptied';
    case 'truncated': {
      const newSizeBytes = offsetPicker(random, now, before)();
      ftruncateSync(fd, newSizeBytes);
      return `truncated to ${newSizeBytes} of ${now.length} bytes`;
    }
    case 'bits flipped': {
      const flips = logUniformInt(random, 1, MAX_FLIPS);
      const offsets = Array.from({ length: flips }, offsetPicker(random, now, before));
      for (const offset of offsets) flipBit(directory, file, offset, random.int(8));
      return `with a bit flipped at ${offsets.join(', ')}`;
    }
    case 'garbage': {
      const start = offsetPicker(random, now, before)();
      const length = Math.min(now.length - start, logUniformInt(random, 1, MAX_GARBAGE_BYTES));
      overwrite(fd, [start], now.length, () => garbage(random, length));
      return `with ${length} bytes of garbage at ${start}`;
    }
    case 'all garbage': {
      const block = garbage(random, MAX_GARBAGE_BYTES);
      const starts = Array.from({ length: Math.ceil(now.length / block.length) }, (_, n) => n * block.length);
      overwrite(fd, starts, now.length, () => block);
      return `with all ${now.length} bytes garbage`;
    }
    case 'some pages old': {
      const pages = changedBlocks(now, before, PAGE_BYTES);
      const one = pages[random.int(Math.max(pages.length, 1))];
      const chosen =
        random.int(2) === 0 ? pages.filter((page) => page === one) : pages.filter(() => random.int(2) === 0);
      if (chosen.length === 0) return undefined;
      overwrite(fd, chosen, now.length, (start) => before.subarray(start, start + PAGE_BYTES));
      return `with ${chosen.length} of ${pages.length} changed pages put back, at ${chosen.join(', ')}`;
    }
  }
}

/**
 * Makes a function that draws offsets from one region of a file: the start, where a header is likely, the
 * whole file, or the part that has changed and is therefore in use. One damage stays in one region, because a
 * damaged header would hide how the target handles the rest.
 */
function offsetPicker(random: Random, now: Buffer, before: Buffer): () => number {
  const region = random.int(4);
  if (region === 0) return () => random.int(Math.min(now.length, HEADER_BYTES));
  const used = region === 1 ? [] : changedBlocks(now, before, BLOCK_BYTES).filter((at) => at >= HEADER_BYTES);
  if (used.length === 0) return () => random.int(now.length);
  return () => Math.min(now.length - 1, random.pick(used) + random.int(BLOCK_BYTES));
}

/** Returns the offsets (in bytes) of the blocks that differ between now and before. */
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

/** Writes the bytes of `bytesAt` at each offset. It never writes beyond `sizeBytes`. */
function overwrite(
  fd: number,
  starts: readonly number[],
  sizeBytes: number,
  bytesAt: (start: number) => Buffer,
): void {
  for (const start of starts) {
    const bytes = bytesAt(start);
    writeSync(fd, bytes, 0, Math.min(bytes.length, Math.max(sizeBytes - start, 0)), start);
  }
}

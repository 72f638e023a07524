import { constants, readSync } from 'node:fs';
import type { Fault, FaultContext, Injection } from '../fault.js';
import { unlessGone, withFileBelow } from '../files/open-below.js';
import { filesMatching, flipBit } from '../files/walk.js';
import { hit, miss } from '../injection.js';
import { AVAILABLE } from '../programs.js';
import { sample } from '../random-choice.js';

const MAX_RECORDS = 4;
const MAX_BITS = 8;

/**
 * Flips bits inside stored messages that are confirmed and not yet delivered, in every copy of them. The
 * messages are found by the mark that each one carries as plain bytes. A target that compresses or encrypts
 * its files is a miss.
 */
export const dataRot: Fault = {
  name: 'data-rot',
  family: 'data-rot',
  summary: 'bits flipped in stored messages while down: rot must be noticed and named, never delivered',
  needs: { target: 'down', disk: 'any' },
  actsOnStoredData: true,
  available: async () => AVAILABLE,
  async inject(context: FaultContext): Promise<Injection> {
    const marks = context.storedMarks();
    if (marks.size === 0) return miss('no message was confirmed and not yet delivered');
    const files = filesMatching(context.dataDir, context.messageFiles);
    if (files.length === 0) {
      const why =
        context.messageFiles.length === 0 ? 'the target names none' : context.messageFiles.join(', ');
      return miss(`no message file was found (${why})`);
    }
    const chosenIds = sample(context.random, [...marks.keys()], 1 + context.random.int(MAX_RECORDS));
    const chosen = new Map([...marks].filter(([id]) => chosenIds.includes(id)));
    const rotted = new Set<string>();
    const flips: string[] = [];
    for (const file of files) {
      const found = unlessGone(() => findInFile(context.dataDir, file, chosen)) ?? [];
      for (const [id, offsets] of found) {
        for (const offset of offsets)
          flips.push(flipRandomBits(context, file, offset, chosen.get(id)?.length ?? 1));
        rotted.add(id);
      }
    }
    if (rotted.size === 0) return miss(`none of ${chosenIds.join(', ')} was found in ${files.join(', ')}`);
    return {
      ...hit(`bits flipped in ${[...rotted].join(', ')}: ${flips.join('; ')}`, 'none', []),
      rotted: [...rotted],
    };
  },
  heal: async () => {},
};

/** Flips a few different bits, so that no two flips undo each other, and returns their positions as text. */
function flipRandomBits(context: FaultContext, file: string, offset: number, length: number): string {
  const bits = new Set<number>();
  const count = 1 + context.random.int(MAX_BITS);
  for (let turn = 0; turn < count; turn++) bits.add(context.random.int(length * 8));
  for (const bit of bits) flipBit(context.dataDir, file, offset + (bit >> 3), bit & 7);
  return `${file} at ${[...bits].map((bit) => `${offset + (bit >> 3)}.${bit & 7}`).join(' ')}`;
}

const CHUNK_BYTES = 4 * 1024 * 1024;

/**
 * Finds every offset (in bytes) at which one of the byte strings starts in a file, by the id of the string.
 */
function findInFile(
  directory: string,
  file: string,
  marks: ReadonlyMap<string, Buffer>,
): Map<string, number[]> {
  const offsetsById = new Map<string, number[]>();
  const maxLength = Math.max(0, ...[...marks.values()].map((bytes) => bytes.length));
  if (maxLength === 0) return offsetsById;
  const block = Buffer.alloc(CHUNK_BYTES + maxLength - 1);
  return withFileBelow(directory, file, constants.O_RDONLY, (fd) => {
    for (let start = 0; ; start += CHUNK_BYTES) {
      const length = readSync(fd, block, 0, block.length, start);
      for (const [name, bytes] of marks) {
        for (const at of offsetsIn(block.subarray(0, length), bytes)) {
          // A match that starts in the overlap is found again in the next chunk.
          if (at < CHUNK_BYTES) offsetsById.set(name, [...(offsetsById.get(name) ?? []), start + at]);
        }
      }
      if (length < block.length) return offsetsById;
    }
  });
}

function offsetsIn(block: Buffer, bytes: Buffer): number[] {
  const offsets: number[] = [];
  for (let at = block.indexOf(bytes); at !== -1; at = block.indexOf(bytes, at + 1)) offsets.push(at);
  return offsets;
}

import { closeSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import type { Fault, Ground, Injection } from '../fault.js';
import { filesMatching, flipBit } from '../files/walk.js';
import { hit, miss } from '../injection.js';
import { ALWAYS } from '../programs.js';
import { choose } from '../random-choice.js';

const MOST_RECORDS = 4;
const MOST_BITS = 8;

/**
 * Flips bits inside stored messages that are confirmed and not yet delivered, every copy of them. They are found by
 * the mark that each message carries in clear; a target that compresses or encrypts what it stores is a miss.
 */
export const dataRot: Fault = {
  name: 'data-rot',
  family: 'data-rot',
  summary: 'bits flipped in stored messages while down: rot must be noticed and named, never delivered',
  needs: { target: 'down', disk: 'any' },
  available: async () => ALWAYS,
  async inject(ground: Ground): Promise<Injection> {
    const marks = ground.storedMarks();
    if (marks.size === 0) return miss('no message was confirmed and not yet delivered');
    const files = filesMatching(ground.dataDir, ground.messageFiles);
    if (files.length === 0) {
      const why = ground.messageFiles.length === 0 ? 'the target names none' : ground.messageFiles.join(', ');
      return miss(`no message file was found (${why})`);
    }
    const wanted = choose(ground.random, [...marks.keys()], 1 + ground.random.int(MOST_RECORDS));
    const chosen = new Map([...marks].filter(([id]) => wanted.includes(id)));
    const rotted = new Set<string>();
    const done: string[] = [];
    for (const file of files) {
      const path = join(ground.dataDir, file);
      for (const [id, offsets] of findInFile(path, chosen)) {
        for (const offset of offsets) done.push(rot(ground, path, file, offset, chosen.get(id)?.length ?? 1));
        rotted.add(id);
      }
    }
    if (rotted.size === 0) return miss(`none of ${wanted.join(', ')} was found in ${files.join(', ')}`);
    return {
      ...hit(`bits flipped in ${[...rotted].join(', ')}: ${done.join('; ')}`, 'none', []),
      rotted: [...rotted],
    };
  },
  heal: async () => {},
};

/** Different bits, so that no two flips undo each other. */
function rot(ground: Ground, path: string, file: string, offset: number, length: number): string {
  const bits = new Set<number>();
  const count = 1 + ground.random.int(MOST_BITS);
  for (let turn = 0; turn < count; turn++) bits.add(ground.random.int(length * 8));
  for (const bit of bits) flipBit(path, offset + (bit >> 3), bit & 7);
  return `${file} at ${[...bits].map((bit) => `${offset + (bit >> 3)}.${bit & 7}`).join(' ')}`;
}

const CHUNK_BYTES = 4 * 1024 * 1024;

/** Every offset in a file at which one of the byte strings starts, by the name of the string. */
function findInFile(path: string, wanted: ReadonlyMap<string, Buffer>): Map<string, number[]> {
  const found = new Map<string, number[]>();
  const longest = Math.max(0, ...[...wanted.values()].map((bytes) => bytes.length));
  if (longest === 0) return found;
  const block = Buffer.alloc(CHUNK_BYTES + longest - 1);
  const file = openSync(path, 'r');
  try {
    for (let start = 0; ; start += CHUNK_BYTES) {
      const length = readSync(file, block, 0, block.length, start);
      for (const [name, bytes] of wanted) {
        for (const at of offsetsIn(block.subarray(0, length), bytes)) {
          // What starts in the overlap is found again in the next chunk.
          if (at < CHUNK_BYTES) found.set(name, [...(found.get(name) ?? []), start + at]);
        }
      }
      if (length < block.length) return found;
    }
  } finally {
    closeSync(file);
  }
}

function offsetsIn(block: Buffer, bytes: Buffer): number[] {
  const offsets: number[] = [];
  for (let at = block.indexOf(bytes); at !== -1; at = block.indexOf(bytes, at + 1)) offsets.push(at);
  return offsets;
}

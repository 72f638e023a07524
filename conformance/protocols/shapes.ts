import { type BodyContent, forgedRecords } from './forged-record.js';
import type { RandomInts } from './random-ints.js';

/** Shapes of the messages in the workload. Only `forged-record` contains NUL bytes, where a protocol can carry them. */
export const MESSAGE_SHAPES = [
  'tiny',
  'text',
  '8bit',
  'binary',
  'long-lines',
  'dots',
  'large',
  'forged-record',
  'many-recipients',
] as const;

/** Shape of a message. */
export type MessageShape = (typeof MESSAGE_SHAPES)[number];

/** Greatest length of a line without its CRLF (RFC 5322, section 2.1.1). */
const MAX_LINE_LENGTH = 998;
const MIB = 2 ** 20;
const TEXT = 'The quick brown fox jumps over the lazy dog; pack my box with five dozen liquor jugs. ';
/** All byte values except NUL, CR and LF. */
const BINARY_BYTES = Array.from({ length: 256 }, (_, byte) => byte).filter(
  (byte) => ![0, 10, 13].includes(byte),
);
const HIGH_BYTES = Array.from({ length: 128 }, (_, n) => n + 128);
/**
 * Size of a pool of random bytes. Lines begin at random offsets in it, so that a large body needs few random
 * numbers.
 */
const POOL_BYTES = 4096;

/**
 * Makes the body of a message: lines that end with CRLF.
 * @param sizeBytes approximate size. The shape `forged-record` ignores it: its size follows from the records.
 * @param content what the protocol can carry, for `forged-record`.
 * @param forge makes a whole message that was never submitted, for `forged-record`.
 */
export function bodyOf(
  shape: MessageShape,
  sizeBytes: number | undefined,
  random: RandomInts,
  content: BodyContent,
  forge: (text: string) => Buffer,
): Buffer {
  switch (shape) {
    case 'tiny':
      return lines(random, sizeBytes ?? 1 + random.int(8), [0x61, 0x62], 8);
    case 'text':
    case 'many-recipients':
      return Buffer.concat([Buffer.from(TEXT.repeat(4)), lines(random, sizeBytes ?? 700, ascii(), 76)]);
    case '8bit':
      return lines(random, sizeBytes ?? 1000, HIGH_BYTES, 76);
    case 'binary':
      return lines(random, sizeBytes ?? 2000 + random.int(4000), BINARY_BYTES, MAX_LINE_LENGTH);
    case 'long-lines':
      return lines(random, sizeBytes ?? 4 * MAX_LINE_LENGTH, ascii(), MAX_LINE_LENGTH, MAX_LINE_LENGTH);
    case 'dots':
      return dots(random, sizeBytes ?? 400);
    case 'large':
      return lines(random, sizeBytes ?? MIB + random.int(2 * MIB), BINARY_BYTES, MAX_LINE_LENGTH);
    case 'forged-record':
      return forgedRecords(
        (padding) => forge(`From: forger@plugpull.test\r\n\r\nforged${'!'.repeat(padding)}\r\n`),
        random,
        content,
      );
  }
}

function ascii(): number[] {
  return Array.from({ length: 95 }, (_, n) => n + 32);
}

function lines(
  random: RandomInts,
  sizeBytes: number,
  alphabet: readonly number[],
  maxLength: number,
  minLength = 1,
): Buffer {
  const pool = Buffer.from(
    Array.from(
      { length: Math.min(POOL_BYTES, sizeBytes + maxLength) },
      () => alphabet[random.int(alphabet.length)] ?? 0x78,
    ),
  );
  const out = Buffer.alloc(sizeBytes + maxLength + 2);
  let at = 0;
  while (at < sizeBytes) {
    const length = Math.min(pool.length, minLength + random.int(maxLength - minLength + 1));
    const from = random.int(pool.length - length + 1);
    at += pool.copy(out, at, from, from + length);
    at += out.write('\r\n', at);
  }
  return out.subarray(0, at);
}

/** Makes lines that begin with dots or consist of dots; the last line is a single dot. */
function dots(random: RandomInts, sizeBytes: number): Buffer {
  const made: string[] = [];
  for (let size = 0; size < sizeBytes; ) {
    const line = `${'.'.repeat(random.int(4))}${'x'.repeat(random.int(3))}\r\n`;
    made.push(line);
    size += line.length;
  }
  return Buffer.from(`.\r\n..\r\n.x\r\n${made.join('')}.\r\n`);
}

import { crc32c } from '@node-rs/crc32';
import fc from 'fast-check';
import t from 'tap';
import { checksum, crc32cOfText } from './checksum.js';

const seed = fc.integer({ min: 0, max: 2 ** 32 - 1 });

t.test('the checksum of any part, short or long, is the one of the native code', async () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 200 }),
      fc.nat(70),
      fc.nat(70),
      seed,
      (array, skipped, left, initial) => {
        const bytes = Buffer.from(array);
        const from = Math.min(skipped, bytes.length);
        const to = Math.max(from, bytes.length - left);
        return checksum(bytes, from, to, initial) === crc32c(bytes.subarray(from, to), initial);
      },
    ),
    { numRuns: 2000 },
  );
});

t.test('the checksum of two parts, one after the other, is the one of the whole', async () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(200), seed, (array, cut, initial) => {
      const bytes = Buffer.from(array);
      const at = Math.min(cut, bytes.length);
      const first = checksum(bytes, 0, at, initial);
      return checksum(bytes, at, bytes.length, first) === checksum(bytes, 0, bytes.length, initial);
    }),
  );
});

t.test('the checksum of the beginning of a text is the one of its UTF-8', async () => {
  fc.assert(
    fc.property(
      fc.oneof(fc.string({ maxLength: 100 }), fc.string({ unit: 'grapheme', maxLength: 100 })),
      fc.nat(120),
      (text, cut) => {
        const length = Math.min(cut, text.length);
        return crc32cOfText(text, length) === crc32c(text.slice(0, length));
      },
    ),
    { numRuns: 1000 },
  );
});

/** All byte values twice, so that the filler of a message can begin with any value. */
const FILLER = Buffer.from(Array.from({ length: 512 }, (_, n) => n % 256));

/** Makes a message whose first bytes give its number and size. All other bytes follow from them. */
export function makeBody(number: number, sizeBytes: number): Buffer {
  const start = number % 256;
  const filler = Buffer.alloc(sizeBytes, FILLER.subarray(start, start + 256));
  return Buffer.concat([Buffer.from(`m${number}|${sizeBytes}|`), filler]);
}

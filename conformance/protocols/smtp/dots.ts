const DOT = 0x2e;
const LINE_AND_DOT = Buffer.from('\r\n.');
const END = Buffer.from('.\r\n');

/**
 * The message as it goes over the wire: dots at line starts doubled, the final dot behind (RFC 5321 4.5.2). `bytes`
 * ends with CRLF.
 */
export function stuffed(bytes: Buffer): Buffer {
  const parts: Buffer[] = [];
  let from = 0;
  if (bytes[0] === DOT) parts.push(Buffer.from('.'));
  for (let at = bytes.indexOf(LINE_AND_DOT); at >= 0; at = bytes.indexOf(LINE_AND_DOT, at + 1)) {
    parts.push(bytes.subarray(from, at + 3), Buffer.from('.'));
    from = at + 3;
  }
  parts.push(bytes.subarray(from), END);
  return Buffer.concat(parts);
}

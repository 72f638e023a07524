const DOT = 0x2e;
const LINE_END_DOT = Buffer.from('\r\n.');
const ONE_DOT = Buffer.from('.');
const END = Buffer.from('.\r\n');
const LINE_END_AND_END = Buffer.from('\r\n.\r\n');

/**
 * A message as it goes over the wire after DATA (RFC 5321 4.5.2), in pieces: a dot put before every dot that begins a
 * line, and the end mark. A message whose last line has no CRLF gets one, there is no other way to end it.
 */
export function stuffed(data: Buffer): Buffer[] {
  const pieces: Buffer[] = [];
  if (data[0] === DOT) pieces.push(ONE_DOT);
  let from = 0;
  for (let at = data.indexOf(LINE_END_DOT); at >= 0; at = data.indexOf(LINE_END_DOT, at + 2)) {
    pieces.push(data.subarray(from, at + 3));
    from = at + 2;
  }
  if (from < data.length) pieces.push(data.subarray(from));
  const endsLine = data.length === 0 || (data.at(-1) === 0x0a && data.at(-2) === 0x0d);
  pieces.push(endsLine ? END : LINE_END_AND_END);
  return pieces;
}

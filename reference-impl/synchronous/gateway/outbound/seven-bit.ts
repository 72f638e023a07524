import { isAscii } from 'node:buffer';

/** Maximum depth of entities inside each other. A deeper message is not converted. */
const MAX_DEPTH = 32;
const CRLF = Buffer.from('\r\n');
/** Number of bytes that a base64 line of 76 characters encodes (RFC 2045 6.8). */
const BASE64_LINE_BYTES = 57;
const MAX_QUOTED_LINE_LENGTH = 76;
/** Number of bytes that a text may be longer in quoted-printable than in base64. People can read quoted-printable. */
const QUOTED_SURPLUS_BYTES = 64;
const DASH = 0x2d;

/** Thrown inside this file for a message that cannot be converted. */
class NotConvertible extends Error {}

/**
 * Converts a message to 7-bit MIME, for a next hop without 8BITMIME (RFC 6152, section 3). The bodies with 8-bit bytes
 * are encoded as base64, or as quoted-printable if they are text and hardly longer so (`QUOTED_SURPLUS_BYTES`). No other
 * byte of the body changes. A MIME program decodes the same content as before.
 * @returns undefined if no conversion keeps the meaning: the message is not MIME, a header has 8-bit bytes, the
 * bytes are not those of the declared encoding, or a signature covers the part
 */
export function toSevenBit(message: Buffer): Buffer | undefined {
  try {
    const headers = readHeaders(message);
    if (!headers.fields.some(({ name }) => name === 'mime-version')) return undefined;
    return Buffer.concat(convertEntity(message, 'text/plain', 0));
  } catch (error) {
    if (error instanceof NotConvertible) return undefined;
    throw error;
  }
}

interface Field {
  /** Lower-case name. */
  name: string;
  /** Value without folds. */
  value: string;
  /** The whole field with its line ends. */
  bytes: Buffer;
}

interface Headers {
  fields: Field[];
  /** Byte at which the body starts, behind the empty line. */
  bodyStart: number;
}

/** Reads the header section of an entity. @throws NotConvertible if it has another line, or 8-bit bytes */
function readHeaders(entity: Buffer): Headers {
  const fields: Field[] = [];
  let at = 0;
  for (;;) {
    if (at === entity.length) return { fields, bodyStart: at };
    if (startsLine(entity, at)) return { fields, bodyStart: at + 2 };
    let end = lineEnd(entity, at);
    while (entity[end] === 0x20 || entity[end] === 0x09) end = lineEnd(entity, end);
    const bytes = entity.subarray(at, end);
    const match = /^([!-9;-~]+)[ \t]*:([\s\S]*)$/.exec(bytes.toString('latin1'));
    if (match === null || !isAscii(bytes)) throw new NotConvertible();
    const value = (match[2] ?? '').replace(/\r\n(?=[ \t])/g, '').trim();
    fields.push({ name: (match[1] ?? '').toLowerCase(), value, bytes });
    at = end;
  }
}

function startsLine(bytes: Buffer, at: number): boolean {
  return bytes[at] === 0x0d && bytes[at + 1] === 0x0a;
}

/** Returns the byte behind the CRLF of the line at `at`, or the end of the bytes. */
function lineEnd(bytes: Buffer, at: number): number {
  const end = bytes.indexOf(CRLF, at);
  return end < 0 ? bytes.length : end + 2;
}

/** Converts an entity: its headers, and its body or its parts. @throws NotConvertible */
function convertEntity(entity: Buffer, defaultType: string, depth: number): Buffer[] {
  if (isAscii(entity)) return [entity];
  if (depth > MAX_DEPTH) throw new NotConvertible();
  const { fields, bodyStart } = readHeaders(entity);
  const contentType = only(fields, 'content-type')?.value ?? defaultType;
  const encoding = (only(fields, 'content-transfer-encoding')?.value ?? '8bit').toLowerCase();
  // 8-bit bytes under any other encoding contradict it. Mail with 8-bit bytes under 7bit, the default, is so common that
  // 7bit counts as 8bit.
  if (!['7bit', '8bit', 'binary'].includes(encoding)) throw new NotConvertible();
  const type = contentType.replace(/[;\s][\s\S]*$/, '').toLowerCase();
  const body = entity.subarray(bodyStart);
  if (type === 'multipart/signed' || type === 'multipart/encrypted') throw new NotConvertible();
  if (type.startsWith('multipart/')) {
    const partType = type === 'multipart/digest' ? 'message/rfc822' : 'text/plain';
    return [...withEncoding(fields, '7bit'), ...convertParts(body, boundaryOf(contentType), partType, depth)];
  }
  if (type === 'message/rfc822') {
    return [...withEncoding(fields, '7bit'), ...convertEntity(body, 'text/plain', depth + 1)];
  }
  // RFC 2046 5.2 allows no other encoding than 7bit for the other types of messages.
  if (type.startsWith('message/')) throw new NotConvertible();
  const base64 = encodeBase64(body);
  const quoted = type.startsWith('text/')
    ? encodeQuoted(body, base64.length + QUOTED_SURPLUS_BYTES)
    : undefined;
  return quoted === undefined
    ? [...withEncoding(fields, 'base64'), base64]
    : [...withEncoding(fields, 'quoted-printable'), quoted];
}

/** Returns the only field of a name. @throws NotConvertible if there are several */
function only(fields: readonly Field[], name: string): Field | undefined {
  const found = fields.filter((field) => field.name === name);
  if (found.length > 1) throw new NotConvertible();
  return found[0];
}

/** Returns the header section with another Content-Transfer-Encoding, in the place of the old one, and the empty line. */
function withEncoding(fields: readonly Field[], encoding: string): Buffer[] {
  const field = Buffer.from(`Content-Transfer-Encoding: ${encoding}\r\n`);
  const isOld = ({ name }: Field) => name === 'content-transfer-encoding';
  const replaced = fields.map((one) => (isOld(one) ? field : one.bytes));
  return [...replaced, ...(fields.some(isOld) ? [] : [field]), CRLF];
}

function boundaryOf(contentType: string): string {
  const match = /;\s*boundary\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"()]+))/i.exec(contentType);
  const boundary = match?.[2] ?? match?.[1]?.replace(/\\(.)/g, '$1');
  if (boundary === undefined || boundary === '') throw new NotConvertible();
  return boundary;
}

/**
 * Converts the parts of a multipart body. The CRLF in front of a delimiter belongs to the delimiter (RFC 2046 5.1.1).
 * @throws NotConvertible if a delimiter is missing, or the preamble or epilogue has 8-bit bytes
 */
function convertParts(body: Buffer, boundary: string, partType: string, depth: number): Buffer[] {
  const delimiter = Buffer.from(`--${boundary}`, 'latin1');
  const pieces: Buffer[] = [];
  let from = 0;
  let isPart = false;
  for (let at = body.indexOf(delimiter); at >= 0; at = body.indexOf(delimiter, at + 1)) {
    if (at > 0 && !startsLine(body, at - 2)) continue;
    const end = lineEnd(body, at);
    const rest = body.toString('latin1', at + delimiter.length, end).trimEnd();
    if (rest !== '' && rest !== '--') continue;
    const partEnd = Math.max(from, at - 2);
    const part = body.subarray(from, partEnd);
    if (isPart) pieces.push(...convertEntity(part, partType, depth + 1));
    else if (isAscii(part)) pieces.push(part);
    else throw new NotConvertible();
    pieces.push(body.subarray(partEnd, end));
    from = end;
    isPart = true;
    if (rest === '') continue;
    const epilogue = body.subarray(from);
    if (!isAscii(epilogue)) throw new NotConvertible();
    pieces.push(epilogue);
    return pieces;
  }
  throw new NotConvertible();
}

function encodeBase64(body: Buffer): Buffer {
  const lines = Math.ceil(body.length / BASE64_LINE_BYTES);
  const encoded = Buffer.alloc(Math.ceil(body.length / 3) * 4 + 2 * lines);
  let to = 0;
  for (let from = 0; from < body.length; from += BASE64_LINE_BYTES) {
    const text = body.toString('base64', from, from + BASE64_LINE_BYTES);
    to += encoded.write(text, to, 'latin1');
    to += encoded.write('\r\n', to, 'latin1');
  }
  return encoded.subarray(0, to);
}

/** Encodes a text as quoted-printable (RFC 2045 6.7). @returns undefined if it needs more than `maxBytes` */
function encodeQuoted(body: Buffer, maxBytes: number): Buffer | undefined {
  const encoded = Buffer.alloc(maxBytes);
  let to = 0;
  let column = 0;
  for (let at = 0; at < body.length; at += 1) {
    // One turn writes at most a soft line break and three characters.
    if (to + 6 > maxBytes) return undefined;
    if (startsLine(body, at)) {
      to += encoded.write('\r\n', to, 'latin1');
      column = 0;
      at += 1;
      continue;
    }
    const byte = body[at] ?? 0;
    const isBlank = byte === 0x20 || byte === 0x09;
    const isLast = at + 1 === body.length || startsLine(body, at + 1);
    let isLiteral = (isBlank && !isLast) || (byte > 0x20 && byte < 0x7f && byte !== 0x3d);
    // Keep a column for the "=" of a soft line break.
    if (column + (isLiteral ? 1 : 3) > MAX_QUOTED_LINE_LENGTH - 1) {
      to += encoded.write('=\r\n', to, 'latin1');
      column = 0;
      // A dash at the start of a new line could make the line a delimiter of the multipart around it.
      if (byte === DASH) isLiteral = false;
    }
    const width = isLiteral ? 1 : 3;
    if (isLiteral) encoded[to] = byte;
    else encoded.write(`=${byte.toString(16).toUpperCase().padStart(2, '0')}`, to, 'latin1');
    to += width;
    column += width;
  }
  return encoded.subarray(0, to);
}

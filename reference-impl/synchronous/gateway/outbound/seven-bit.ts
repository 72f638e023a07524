import { isAscii } from 'node:buffer';
import { setImmediate as nextTurn } from 'node:timers/promises';

/** Maximum depth of entities inside each other. A deeper message is not converted. */
const MAX_DEPTH = 32;
/** Maximum number of entities. A message with more is not converted. */
const MAX_ENTITIES = 1000;
/** Maximum size of the header sections of all entities together. */
const MAX_HEADER_BYTES = 512 * 1024;
/** Number of bytes after which the conversion lets the event loop continue. */
const BYTES_PER_TURN = 256 * 1024;
const CRLF = Buffer.from('\r\n');
/** Number of bytes that a base64 line of 76 characters encodes (RFC 2045 6.8). */
const BASE64_LINE_BYTES = 57;
const MAX_QUOTED_LINE_LENGTH = 76;
/** Number of bytes that a text may be longer in quoted-printable than in base64. People can read quoted-printable. */
const QUOTED_SURPLUS_BYTES = 64;
const DASH = 0x2d;
/** Number of blanks that may stand behind a delimiter. */
const MAX_DELIMITER_BLANKS = 1000;
/** Number of lines that may begin like a delimiter. */
const MAX_DELIMITER_LINES = 100_000;
/** Number of bytes of a text after which a pause is possible. */
const QUOTED_BLOCK_BYTES = 16 * 1024;

/** Thrown inside this file for a message that cannot be converted. */
class NotConvertible extends Error {}

/** Returns the largest size in bytes of the 7-bit form of a message. A message that would become larger is not converted. */
export const maxSevenBitBytes = (messageBytes: number): number => Math.floor(messageBytes * 1.5) + 64 * 1024;

/**
 * Converts a message to 7-bit MIME, for a next hop without 8BITMIME (RFC 6152, section 3). The bodies with 8-bit bytes
 * are encoded as base64, or as quoted-printable if they are text and hardly longer so (`QUOTED_SURPLUS_BYTES`). No other
 * byte of the body changes. A MIME program decodes the same content as before.
 * @param pause lets the event loop continue, and is called after every 256 KiB or so. What it throws ends the conversion.
 * @returns undefined if no conversion keeps the meaning: the message is not MIME, a header has 8-bit bytes, the
 * bytes are not those of the declared encoding, or a signature covers the part; or if the message has more than 1,000 parts
 * or 512 KiB of headers, is nested too deep, or would become larger than `maxSevenBitBytes`
 */
export async function toSevenBit(
  message: Buffer,
  pause: () => Promise<unknown> = () => nextTurn(),
): Promise<Buffer | undefined> {
  try {
    const conversion = new Conversion(message, pause);
    return await conversion.run();
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

function startsLine(bytes: Buffer, at: number): boolean {
  return bytes[at] === 0x0d && bytes[at + 1] === 0x0a;
}

/** Returns the byte behind the CRLF of the line at `at`, or the end of the bytes. */
function lineEnd(bytes: Buffer, at: number): number {
  const end = bytes.indexOf(CRLF, at);
  return end < 0 ? bytes.length : end + 2;
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

const HEX = Buffer.from('0123456789ABCDEF');
const EQUALS = 0x3d;

/** The conversion of one message. Its output goes into one buffer of limited size. */
class Conversion {
  readonly #message: Buffer;
  readonly #pause: () => Promise<unknown>;
  readonly #output: Buffer;
  #size = 0;
  #entities = 0;
  #headerBytes = 0;
  #delimiterLines = 0;
  /** Number of bytes that were handled since the last pause. */
  #handledBytes = 0;

  constructor(message: Buffer, pause: () => Promise<unknown>) {
    this.#message = message;
    this.#pause = pause;
    // Memory is used only as far as it is written.
    this.#output = Buffer.allocUnsafeSlow(maxSevenBitBytes(message.length));
  }

  async run(): Promise<Buffer> {
    const headers = await this.#readHeaders(this.#message);
    if (!headers.fields.some(({ name }) => name === 'mime-version')) throw new NotConvertible();
    // They are read once more, as those of an entity.
    this.#headerBytes = 0;
    await this.#convertEntity(this.#message, 'text/plain', 0);
    return this.#output.subarray(0, this.#size);
  }

  /** Counts bytes that were handled. Returns a pause if it is time for one. */
  #handled(bytes: number): Promise<unknown> | undefined {
    this.#handledBytes += bytes;
    if (this.#handledBytes < BYTES_PER_TURN) return undefined;
    this.#handledBytes = 0;
    return this.#pause();
  }

  /** @throws NotConvertible if the output has no room for these bytes */
  #needRoom(bytes: number): void {
    if (this.#size + bytes > this.#output.length) throw new NotConvertible();
  }

  #write(bytes: Buffer): void {
    this.#needRoom(bytes.length);
    this.#size += bytes.copy(this.#output, this.#size);
  }

  #writeFields(fields: readonly Field[], encoding: string): void {
    for (const bytes of withEncoding(fields, encoding)) this.#write(bytes);
  }

  /** Reads the header section of an entity. @throws NotConvertible if it has another line, or 8-bit bytes, or is too long */
  async #readHeaders(entity: Buffer): Promise<Headers> {
    const fields: Field[] = [];
    let at = 0;
    for (;;) {
      if (at === entity.length) return { fields, bodyStart: at };
      if (startsLine(entity, at)) return { fields, bodyStart: at + 2 };
      let end = lineEnd(entity, at);
      while (entity[end] === 0x20 || entity[end] === 0x09) end = lineEnd(entity, end);
      const bytes = entity.subarray(at, end);
      this.#headerBytes += bytes.length;
      if (this.#headerBytes > MAX_HEADER_BYTES) throw new NotConvertible();
      const match = /^([!-9;-~]+)[ \t]*:([\s\S]*)$/.exec(bytes.toString('latin1'));
      if (match === null || !isAscii(bytes)) throw new NotConvertible();
      const value = (match[2] ?? '').replace(/\r\n(?=[ \t])/g, '').trim();
      fields.push({ name: (match[1] ?? '').toLowerCase(), value, bytes });
      at = end;
      // The work for a field is a multiple of that for its bytes in a body.
      const pause = this.#handled(8 * bytes.length + 256);
      if (pause !== undefined) await pause;
    }
  }

  /** Converts an entity: its headers, and its body or its parts. @throws NotConvertible */
  async #convertEntity(entity: Buffer, defaultType: string, depth: number): Promise<void> {
    this.#entities += 1;
    if (this.#entities > MAX_ENTITIES || depth > MAX_DEPTH) throw new NotConvertible();
    // The test for ASCII is many times as fast as the rest.
    await this.#handled(entity.length >> 4);
    if (isAscii(entity)) {
      this.#write(entity);
      return;
    }
    const { fields, bodyStart } = await this.#readHeaders(entity);
    const contentType = only(fields, 'content-type')?.value ?? defaultType;
    const encoding = (only(fields, 'content-transfer-encoding')?.value ?? '8bit').toLowerCase();
    // 8-bit bytes under another encoding break their own declaration, and 7bit, the default, is broken so often that it counts
    // as 8bit.
    if (!['7bit', '8bit', 'binary'].includes(encoding)) throw new NotConvertible();
    const type = contentType.replace(/[;\s][\s\S]*$/, '').toLowerCase();
    const body = entity.subarray(bodyStart);
    if (type === 'multipart/signed' || type === 'multipart/encrypted') throw new NotConvertible();
    if (type.startsWith('multipart/')) {
      const partType = type === 'multipart/digest' ? 'message/rfc822' : 'text/plain';
      this.#writeFields(fields, '7bit');
      await this.#convertParts(body, boundaryOf(contentType), partType, depth);
      return;
    }
    if (type === 'message/rfc822') {
      this.#writeFields(fields, '7bit');
      await this.#convertEntity(body, 'text/plain', depth + 1);
      return;
    }
    // RFC 2046 5.2 allows no other encoding than 7bit for the other types of messages.
    if (type.startsWith('message/')) throw new NotConvertible();
    const start = this.#size;
    if (type.startsWith('text/')) {
      this.#writeFields(fields, 'quoted-printable');
      if (await this.#encodeQuoted(body, base64Size(body) + QUOTED_SURPLUS_BYTES)) return;
      this.#size = start;
    }
    this.#writeFields(fields, 'base64');
    await this.#encodeBase64(body);
  }

  /**
   * Converts the parts of a multipart body. The CRLF in front of a delimiter belongs to the delimiter (RFC 2046 5.1.1).
   * @throws NotConvertible if a delimiter is missing, or the preamble or epilogue has 8-bit bytes
   */
  async #convertParts(body: Buffer, boundary: string, partType: string, depth: number): Promise<void> {
    const delimiter = Buffer.from(`--${boundary}`, 'latin1');
    let from = 0;
    let isPart = false;
    let next = 0;
    for (let at = body.indexOf(delimiter); at >= 0; at = body.indexOf(delimiter, next)) {
      this.#delimiterLines += 1;
      if (this.#delimiterLines > MAX_DELIMITER_LINES) throw new NotConvertible();
      const pause = this.#handled(256 + ((at - next) >> 4));
      if (pause !== undefined) await pause;
      const end = lineEnd(body, at);
      next = end;
      if (at > 0 && !startsLine(body, at - 2)) continue;
      const behind = at + delimiter.length;
      const restEnd = Math.min(end, behind + MAX_DELIMITER_BLANKS);
      const rest = body.toString('latin1', behind, restEnd).trimEnd();
      if (rest !== '' && rest !== '--') continue;
      if (restEnd < end) throw new NotConvertible();
      const partEnd = Math.max(from, at - 2);
      const part = body.subarray(from, partEnd);
      if (isPart) await this.#convertEntity(part, partType, depth + 1);
      else if (isAscii(part)) this.#write(part);
      else throw new NotConvertible();
      this.#write(body.subarray(partEnd, end));
      from = end;
      isPart = true;
      if (rest === '') continue;
      const epilogue = body.subarray(from);
      if (!isAscii(epilogue)) throw new NotConvertible();
      this.#write(epilogue);
      return;
    }
    throw new NotConvertible();
  }

  async #encodeBase64(body: Buffer): Promise<void> {
    this.#needRoom(base64Size(body));
    for (let from = 0; from < body.length; from += BASE64_LINE_BYTES) {
      const text = body.toString('base64', from, from + BASE64_LINE_BYTES);
      this.#size += this.#output.write(text, this.#size, 'latin1');
      this.#output[this.#size++] = 0x0d;
      this.#output[this.#size++] = 0x0a;
      const pause = this.#handled(BASE64_LINE_BYTES);
      if (pause !== undefined) await pause;
    }
  }

  /** Encodes a text as quoted-printable (RFC 2045 6.7). Returns false if it needs more than `maxBytes`. */
  async #encodeQuoted(body: Buffer, maxBytes: number): Promise<boolean> {
    const encoded = this.#output;
    const maxEnd = this.#size + maxBytes;
    let to = this.#size;
    let column = 0;
    let nextPause = QUOTED_BLOCK_BYTES;
    for (let at = 0; at < body.length; at += 1) {
      if (at >= nextPause) {
        nextPause += QUOTED_BLOCK_BYTES;
        await this.#handled(QUOTED_BLOCK_BYTES);
      }
      // One turn writes at most a soft line break and three characters.
      if (to + 6 > maxEnd || to + 6 > encoded.length) return false;
      if (startsLine(body, at)) {
        encoded[to++] = 0x0d;
        encoded[to++] = 0x0a;
        column = 0;
        at += 1;
        continue;
      }
      const byte = body[at] ?? 0;
      const isBlank = byte === 0x20 || byte === 0x09;
      const isLast = at + 1 === body.length || startsLine(body, at + 1);
      let isLiteral = (isBlank && !isLast) || (byte > 0x20 && byte < 0x7f && byte !== EQUALS);
      // Keep a column for the "=" of a soft line break.
      if (column + (isLiteral ? 1 : 3) > MAX_QUOTED_LINE_LENGTH - 1) {
        encoded[to++] = EQUALS;
        encoded[to++] = 0x0d;
        encoded[to++] = 0x0a;
        column = 0;
        // A dash at the start of a new line could make the line a delimiter of the multipart around it.
        if (byte === DASH) isLiteral = false;
      }
      if (isLiteral) {
        encoded[to++] = byte;
        column += 1;
      } else {
        encoded[to++] = EQUALS;
        encoded[to++] = HEX[byte >> 4] ?? 0;
        encoded[to++] = HEX[byte & 15] ?? 0;
        column += 3;
      }
    }
    this.#size = to;
    return true;
  }
}

/** Returns the size of a body in base64, with its line ends. */
function base64Size(body: Buffer): number {
  return Math.ceil(body.length / 3) * 4 + 2 * Math.ceil(body.length / BASE64_LINE_BYTES);
}

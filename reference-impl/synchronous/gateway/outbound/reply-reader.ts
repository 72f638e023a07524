/** A reply of an SMTP server: its code and its lines without code and CRLF. */
export interface Reply {
  code: number;
  lines: string[];
}

/** Maximum size of one reply in bytes. A server that sends more does not speak SMTP. */
const MAX_REPLY_BYTES = 64 * 1024;

/** Assembles replies from chunks (RFC 5321 4.2). */
export class ReplyReader {
  #rest = '';
  #lines: string[] = [];
  /** Size of the lines of the reply that has begun. */
  #lineBytes = 0;

  /** Whether the bytes up to now end inside a reply. */
  get isInside(): boolean {
    return this.#rest !== '' || this.#lines.length > 0;
  }

  /** Reads a chunk and returns the replies that it completes. @throws Error when the bytes are not SMTP */
  take(chunk: Buffer): Reply[] {
    const text = this.#rest + chunk.toString('latin1');
    const replies: Reply[] = [];
    let from = 0;
    for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n', from)) {
      const line = text.slice(from, text.charCodeAt(end - 1) === 0x0d ? end - 1 : end);
      from = end + 1;
      const reply = this.#takeLine(line);
      if (reply !== undefined) replies.push(reply);
    }
    this.#rest = text.slice(from);
    this.#checkSize(this.#rest.length);
    return replies;
  }

  /** @throws Error when the lines of a reply, with the bytes that follow them, are too long */
  #checkSize(moreBytes: number): void {
    if (this.#lineBytes + moreBytes > MAX_REPLY_BYTES) throw new Error('the answer is too long for SMTP');
  }

  #takeLine(line: string): Reply | undefined {
    const match = /^([2-5]\d\d)(?:([ -])(.*))?$/.exec(line);
    if (match === null) throw new Error(`the answer is not SMTP: ${JSON.stringify(line.slice(0, 80))}`);
    this.#lineBytes += line.length + 2;
    this.#checkSize(0);
    // A copy: a part of the text would keep the whole chunk in memory.
    this.#lines.push(Buffer.from(match[3] ?? '', 'latin1').toString('latin1'));
    if (match[2] === '-') return undefined;
    const lines = this.#lines;
    this.#lines = [];
    this.#lineBytes = 0;
    return { code: Number(match[1]), lines };
  }
}

/** Largest length of a reply as a reason. Each of a thousand recipients may have its own. */
const MAX_REASON_LENGTH = 2048;

/** Formats a reply as one line, for the reason of a failure. A long one is cut. */
export function replyText(reply: Reply): string {
  const text = `${reply.code} ${reply.lines.join(' ')}`.trimEnd();
  if (text.length <= MAX_REASON_LENGTH) return text;
  return Buffer.from(text.slice(0, MAX_REASON_LENGTH), 'latin1').toString('latin1');
}

const DOT = 0x2e;
const LINE_END_DOT = Buffer.from('\r\n.');
const END = Buffer.from('.\r\n');
const LINE_END_AND_END = Buffer.from('\r\n.\r\n');
/** Number of bytes of a message that are converted at a time. */
const BLOCK_BYTES = 64 * 1024;

/**
 * Converts a message into its wire form after DATA (RFC 5321 4.5.2), in blocks of bounded size. It adds a dot before
 * every dot at the start of a line and appends the end mark. If the last line has no CRLF, it adds one, because the
 * end mark needs it. A block is made when it is asked for, so that the wire form never is in memory as a whole.
 */
export function* dotStuff(data: Buffer): Generator<Buffer> {
  for (let from = 0; from < data.length; from += BLOCK_BYTES) {
    const block = data.subarray(from, from + BLOCK_BYTES);
    // The line end before the first dot may be in the block before.
    const isDotFirst = block[0] === DOT && startsLine(data, from);
    const isDotSecond = block[1] === DOT && startsLine(data, from + 1);
    const hasDots = isDotFirst || isDotSecond || block.indexOf(LINE_END_DOT) >= 0;
    yield hasDots ? stuffBlock(data, from, block) : block;
  }
  yield endsLine(data) ? END : LINE_END_AND_END;
}

function stuffBlock(data: Buffer, from: number, block: Buffer): Buffer {
  // Every stuffed dot has a line end before it, so at most every third byte is one.
  const stuffed = Buffer.allocUnsafe(block.length + Math.ceil(block.length / 3) + 1);
  let size = 0;
  for (let at = 0; at < block.length; at++) {
    const byte = block[at] as number;
    if (byte === DOT && startsLine(data, from + at)) stuffed[size++] = DOT;
    stuffed[size++] = byte;
  }
  return stuffed.subarray(0, size);
}

function startsLine(data: Buffer, at: number): boolean {
  return at === 0 || (data[at - 1] === 0x0a && data[at - 2] === 0x0d);
}

function endsLine(data: Buffer): boolean {
  return data.length === 0 || (data.at(-1) === 0x0a && data.at(-2) === 0x0d);
}

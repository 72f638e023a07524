/** One answer of an SMTP server: its code and its lines without code and CRLF. */
export interface Reply {
  code: number;
  lines: string[];
}

/** Most bytes of one answer; more is no SMTP server. */
const MAX_REPLY_BYTES = 64 * 1024;

/** Puts answers together from chunks (RFC 5321 4.2). */
export class ReplyReader {
  #rest = '';
  #lines: string[] = [];

  /** The answers that are complete with this chunk. @throws Error when it is not SMTP */
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
    if (this.#rest.length > MAX_REPLY_BYTES || this.#lines.length > MAX_REPLY_BYTES / 4) {
      throw new Error('the answer is too long for SMTP');
    }
    return replies;
  }

  #takeLine(line: string): Reply | undefined {
    const match = /^([2-5]\d\d)(?:([ -])(.*))?$/.exec(line);
    if (match === null) throw new Error(`the answer is not SMTP: ${JSON.stringify(line.slice(0, 80))}`);
    this.#lines.push(match[3] ?? '');
    if (match[2] === '-') return undefined;
    const lines = this.#lines;
    this.#lines = [];
    return { code: Number(match[1]), lines };
  }
}

/** An answer as one line, as it goes into reasons. */
export function replyText(reply: Reply): string {
  return `${reply.code} ${reply.lines.join(' ')}`.trimEnd();
}

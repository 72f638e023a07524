const CR = 0x0d;
const LF = 0x0a;
const DOT = 0x2e;

/**
 * Position of the reader in a line. `dot`: after a dot at the start of a line. `dot-cr`: after that dot and a CR.
 */
type LineState = 'line-start' | 'line' | 'cr' | 'dot' | 'dot-cr';

/**
 * The complete message after DATA. `bare-line-end`: it contains a CR or LF outside a CRLF, which RFC 5321
 * 2.3.8 forbids and which a relay could not forward unchanged. `too-large`: it exceeds the limit.
 */
export type MailData = { kind: 'data'; data: Buffer } | { kind: 'bare-line-end' } | { kind: 'too-large' };

/**
 * Reads message data after DATA from chunks of any size. It removes the stuffed dots (RFC 5321 4.5.2) and finds
 * the end. Only CRLF.CRLF ends the data: otherwise a client could smuggle in commands after a bare line end.
 */
export class DataReader {
  readonly #limitBytes: number;
  readonly #head: Buffer;
  #lineState: LineState = 'line-start';
  #pieces: Buffer[];
  #sizeBytes = 0;
  #bareLineEnd = false;

  /**
   * @param limitBytes maximum size of the message without the stuffed dots
   * @param head bytes that the result has in front of the message; they do not count against the limit
   */
  constructor(limitBytes: number, head: Buffer = Buffer.alloc(0)) {
    this.#limitBytes = limitBytes;
    this.#head = head;
    this.#pieces = head.length === 0 ? [] : [head];
  }

  /**
   * Takes the next chunk of input. If the end mark of the data is in the chunk, returns the number of its
   * bytes up to and including the end mark: the bytes after it are commands. Otherwise returns undefined.
   */
  take(chunk: Buffer): number | undefined {
    let lineState = this.#lineState;
    let from = 0;
    for (let at = 0; at < chunk.length; at++) {
      const byte = chunk[at];
      switch (lineState) {
        case 'line':
          if (byte === CR) lineState = 'cr';
          else if (byte === LF) this.#bareLineEnd = true;
          continue;
        case 'line-start':
          if (byte === DOT) {
            this.#append(chunk, from, at);
            from = at + 1;
            lineState = 'dot';
            continue;
          }
          break;
        case 'cr':
          if (byte === LF) {
            lineState = 'line-start';
            continue;
          }
          this.#bareLineEnd = true;
          break;
        case 'dot':
          if (byte === CR) {
            lineState = 'dot-cr';
            continue;
          }
          break;
        case 'dot-cr':
          if (byte === LF) return at + 1;
          // The CR was bare. The message will be refused, so the missing CR has no effect.
          this.#bareLineEnd = true;
          break;
      }
      if (byte === LF) this.#bareLineEnd = true;
      lineState = byte === CR ? 'cr' : 'line';
    }
    this.#lineState = lineState;
    // Leave out a CR after a dot: it may be part of the end mark.
    this.#append(chunk, from, lineState === 'dot-cr' ? chunk.length - 1 : chunk.length);
    return undefined;
  }

  /** Returns the message, behind the head. `take` must have found the end mark before. */
  result(): MailData {
    if (this.#sizeBytes > this.#limitBytes) return { kind: 'too-large' };
    if (this.#bareLineEnd) return { kind: 'bare-line-end' };
    const only = this.#pieces.length === 1 ? this.#pieces[0] : undefined;
    return { kind: 'data', data: only ?? Buffer.concat(this.#pieces, this.#head.length + this.#sizeBytes) };
  }

  #append(chunk: Buffer, from: number, to: number): void {
    if (to <= from) return;
    this.#sizeBytes += to - from;
    if (this.#sizeBytes > this.#limitBytes) this.#pieces = [];
    else this.#pieces.push(from === 0 && to === chunk.length ? chunk : chunk.subarray(from, to));
  }
}

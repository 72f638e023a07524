const CR = 0x0d;
const LF = 0x0a;
const DOT = 0x2e;

/** Where in a line the reader stands; `dot`: behind a dot that began a line, `dot-cr`: behind that and a CR. */
type LineState = 'line-start' | 'line' | 'cr' | 'dot' | 'dot-cr';

/**
 * What came after DATA, whole. `bare-line-end`: it holds a CR or LF that is no CRLF, which RFC 5321 2.3.8 forbids
 * and which no relay could pass on unchanged. `too-large`: more than the limit.
 */
export type MailData = { kind: 'data'; data: Buffer } | { kind: 'bare-line-end' } | { kind: 'too-large' };

/**
 * Reads message data after DATA, however it is cut into chunks: takes the dots off that RFC 5321 4.5.2 has put on
 * and finds the end. Only CRLF.CRLF ends the data, so that nobody smuggles commands in behind a bare line end.
 */
export class DataReader {
  readonly #limitBytes: number;
  #lineState: LineState = 'line-start';
  #pieces: Buffer[] = [];
  #sizeBytes = 0;
  #bareLineEnd = false;

  /** @param limitBytes of the message, dots taken off */
  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
  }

  /** Takes the next chunk. Returns how many bytes of it belong to the data when the data ends in it, else undefined. */
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
          // The CR was bare: the message is refused, so it does not matter that the CR is not kept.
          this.#bareLineEnd = true;
          break;
      }
      if (byte === LF) this.#bareLineEnd = true;
      lineState = byte === CR ? 'cr' : 'line';
    }
    this.#lineState = lineState;
    // What may yet turn out to be the end, a CR behind a dot, is not part of the message.
    this.#append(chunk, from, lineState === 'dot-cr' ? chunk.length - 1 : chunk.length);
    return undefined;
  }

  /** Once the end was found: what the data is. */
  result(): MailData {
    if (this.#sizeBytes > this.#limitBytes) return { kind: 'too-large' };
    if (this.#bareLineEnd) return { kind: 'bare-line-end' };
    const only = this.#pieces.length === 1 ? this.#pieces[0] : undefined;
    return { kind: 'data', data: only ?? Buffer.concat(this.#pieces, this.#sizeBytes) };
  }

  #append(chunk: Buffer, from: number, to: number): void {
    if (to <= from) return;
    this.#sizeBytes += to - from;
    if (this.#sizeBytes > this.#limitBytes) this.#pieces = [];
    else this.#pieces.push(from === 0 && to === chunk.length ? chunk : chunk.subarray(from, to));
  }
}

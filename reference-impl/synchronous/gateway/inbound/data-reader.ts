import type { BodyBuffer } from './body-buffer.js';

const CR = 0x0d;
const LF = 0x0a;
const DOT = 0x2e;

/**
 * Position of the reader in a line. `dot`: after a dot at the start of a line. `dot-cr`: after that dot and a CR.
 */
type LineState = 'line-start' | 'line' | 'cr' | 'dot' | 'dot-cr';

/**
 * The complete message after DATA. `bare-line-end`: it contains a CR or LF outside a CRLF, which RFC 5321
 * 2.3.8 forbids and which a relay could not forward unchanged. `too-large`: it exceeds the limit. `no-memory`: the
 * worker had no memory for it.
 */
export type MailData = { kind: 'data'; data: Buffer } | { kind: 'bare-line-end' | 'too-large' | 'no-memory' };

/**
 * Reads message data after DATA from chunks of any size. It removes the stuffed dots (RFC 5321 4.5.2) and finds
 * the end. Only CRLF.CRLF ends the data: otherwise a client could smuggle in commands after a bare line end.
 */
export class DataReader {
  readonly #limitBytes: number;
  readonly #body: BodyBuffer;
  #lineState: LineState = 'line-start';
  #sizeBytes = 0;
  #wireBytes = 0;
  #bareLineEnd = false;
  #isDropped = false;

  /**
   * @param limitBytes maximum size of the message without the stuffed dots
   * @param body receives the data
   */
  constructor(limitBytes: number, body: BodyBuffer) {
    this.#limitBytes = limitBytes;
    this.#body = body;
  }

  /** Number of bytes taken up to now, with the stuffed dots. */
  get wireBytes(): number {
    return this.#wireBytes;
  }

  /**
   * Takes the next chunk of input, and overwrites it. If the end mark of the data is in the chunk, returns the number
   * of its bytes up to and including the end mark: the bytes after it are commands and stay unchanged. Otherwise
   * returns undefined.
   */
  take(chunk: Buffer): number | undefined {
    let lineState = this.#lineState;
    // The bytes without the stuffed dots move to the front of the chunk. A buffer for each line would take a hundred
    // times the memory of a message of short lines.
    let keptBytes = 0;
    for (let at = 0; at < chunk.length; at++) {
      const byte = chunk[at] as number;
      if (lineState === 'line' && byte !== CR && byte !== LF) {
        chunk[keptBytes++] = byte;
        continue;
      }
      if (lineState === 'line-start' && byte === DOT) {
        lineState = 'dot';
        continue;
      }
      if (lineState === 'dot' && byte === CR) {
        // The CR may be part of the end mark. If it is bare, the message is refused, so it may be left out.
        lineState = 'dot-cr';
        continue;
      }
      if (byte === LF && lineState === 'dot-cr') {
        this.#keep(chunk.subarray(0, keptBytes), true);
        this.#wireBytes += at + 1;
        return at + 1;
      }
      const endsLine = byte === LF && lineState === 'cr';
      const followsBareCr = lineState === 'cr' || lineState === 'dot-cr';
      if (!endsLine && (byte === LF || followsBareCr)) this.#bareLineEnd = true;
      chunk[keptBytes++] = byte;
      lineState = endsLine ? 'line-start' : byte === CR ? 'cr' : 'line';
    }
    this.#lineState = lineState;
    this.#keep(chunk.subarray(0, keptBytes), false);
    this.#wireBytes += chunk.length;
    return undefined;
  }

  /** Returns the message. `take` must have found the end mark before. */
  result(): MailData {
    if (this.#sizeBytes > this.#limitBytes) return { kind: 'too-large' };
    if (this.#bareLineEnd) return { kind: 'bare-line-end' };
    return this.#isDropped ? { kind: 'no-memory' } : { kind: 'data', data: this.#body.take() };
  }

  /** Drops the data and reads on without keeping any. A message without another fault becomes `no-memory`. */
  drop(): void {
    this.#isDropped = true;
    this.#body.drop();
  }

  #keep(bytes: Buffer, isLast: boolean): void {
    this.#sizeBytes += bytes.length;
    if (this.#isDropped) return;
    const willBeRefused = this.#bareLineEnd || this.#sizeBytes > this.#limitBytes;
    const isKept = !willBeRefused && (isLast ? this.#body.appendLast(bytes) : this.#body.append(bytes));
    if (!isKept) this.drop();
  }
}

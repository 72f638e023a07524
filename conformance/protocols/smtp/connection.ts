import { connect, type Socket } from 'node:net';
import { messageOf } from '../../errors.js';
import type { Address } from '../address.js';
import { guardInput } from '../client/input-guard.js';

/** One reply of an SMTP server. */
export interface Reply {
  code: number;
  /** Texts of the reply's lines, without the code. */
  lines: string[];
}

/** Greatest length of a reply line. A server that sends more without a line end does not speak SMTP. */
const MAX_LINE_BYTES = 16 * 1024;

/** Returns the reply as one line. */
export function replyText(reply: Reply): string {
  return `${reply.code} ${reply.lines.join(' / ')}`.trim();
}

/**
 * Client side of an SMTP connection. It sends bytes and returns replies in order. Once it has broken, all
 * pending and later calls reject with the reason.
 */
export class SmtpConnection {
  readonly #socket: Socket;
  readonly #replies: Reply[] = [];
  readonly #pendingReplies: { resolve: (reply: Reply) => void; reject: (error: Error) => void }[] = [];
  #unparsed = '';
  #lines: string[] = [];
  #broken: Error | undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
    guardInput(socket);
    socket.setNoDelay(true);
    socket.on('data', (chunk: Buffer) => this.#receive(chunk));
    socket.on('error', (error) => this.break(messageOf(error)));
    socket.on('end', () => this.break('the target closed the connection'));
    socket.on('close', () => this.break('the connection is closed'));
  }

  /** Opens a connection; resolves before the greeting. Rejects if that fails or takes longer than `timeoutMs`. */
  static open({ host, port }: Address, timeoutMs: number): Promise<SmtpConnection> {
    return new Promise((resolve, reject) => {
      const socket = connect({ host, port });
      const timer = setTimeout(
        () => socket.destroy(new Error(`no connection within ${timeoutMs} ms`)),
        timeoutMs,
      );
      socket.once('connect', () => {
        clearTimeout(timer);
        socket.removeListener('error', reject);
        resolve(new SmtpConnection(socket));
      });
      socket.once('error', (error) => {
        clearTimeout(timer);
        reject(error);
      });
    });
  }

  get broken(): boolean {
    return this.#broken !== undefined;
  }

  /** Sends bytes; resolves when the kernel has taken them. */
  send(bytes: Buffer | string): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#broken) reject(this.#broken);
      else this.#socket.write(bytes, (error) => (error ? reject(error) : resolve()));
    });
  }

  /**
   * Resolves to the next reply. If none arrives within `timeoutMs` the connection breaks.
   * @param allowedMs time that the message of the error names. Default: `timeoutMs`.
   */
  reply(timeoutMs: number, allowedMs = timeoutMs): Promise<Reply> {
    const ready = this.#replies.shift();
    if (ready) return Promise.resolve(ready);
    return new Promise((resolve, reject) => {
      if (this.#broken) return reject(this.#broken);
      const timer = setTimeout(() => this.break(`no answer within ${allowedMs} ms`), timeoutMs);
      const settle = <Value>(act: (value: Value) => void) => {
        return (value: Value) => {
          clearTimeout(timer);
          act(value);
        };
      };
      this.#pendingReplies.push({ resolve: settle(resolve), reject: settle(reject) });
    });
  }

  /** Closes the connection at once. Bytes that have already arrived stay with the server. */
  break(why: string): void {
    if (this.#broken) return;
    this.#broken = new Error(why);
    this.#socket.destroy();
    for (const waiter of this.#pendingReplies.splice(0)) waiter.reject(this.#broken);
  }

  #receive(chunk: Buffer): void {
    this.#unparsed += chunk.toString('latin1');
    for (let end = this.#unparsed.indexOf('\n'); end >= 0; end = this.#unparsed.indexOf('\n')) {
      const line = this.#unparsed.slice(0, end).replace(/\r$/, '');
      this.#unparsed = this.#unparsed.slice(end + 1);
      this.#receiveLine(line);
    }
    if (this.#unparsed.length > MAX_LINE_BYTES) this.break('the target sent an endless line');
  }

  #receiveLine(line: string): void {
    const match = /^([2-5]\d\d)(?:([ -])(.*))?$/.exec(line);
    if (!match) {
      this.break(`the target sent what is not an SMTP reply: ${line.slice(0, 80)}`);
      return;
    }
    this.#lines.push(match[3] ?? '');
    if (match[2] === '-') return;
    const reply = { code: Number(match[1]), lines: this.#lines };
    this.#lines = [];
    const waiter = this.#pendingReplies.shift();
    if (waiter) waiter.resolve(reply);
    else this.#replies.push(reply);
    if (reply.code === 421) this.break('the target shut the connection down');
  }
}

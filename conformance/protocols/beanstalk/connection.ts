import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import type { Address } from '../address.js';
import { guardInput } from '../client/input-guard.js';
import { withTimeout } from '../client/timeout.js';

/** One answer: the words of its line, and the bytes of the job if it has one. */
export interface Reply {
  words: string[];
  body: Buffer | undefined;
}

/** First words of the answers whose last word is the size of a following body. */
const REPLIES_WITH_BODY = new Set(['RESERVED', 'FOUND', 'OK']);
const CRLF = '\r\n';
/**
 * Greatest length of an answer line. A server that sends more without a line end does not speak this protocol.
 */
const MAX_LINE_BYTES = 1024;

interface PendingReply {
  resolve(reply: Reply): void;
  reject(error: Error): void;
}

/** One connection with beanstalkd's protocol. Answers arrive in the order of the commands. */
export class BeanstalkConnection {
  readonly #socket: Socket;
  readonly #timeoutMs: number;
  readonly #pendingReplies: PendingReply[] = [];
  #chunks: Buffer[] = [];
  #sizeBytes = 0;
  /**
   * Number of received bytes that a whole answer needs at least. With fewer bytes, another parse is useless.
   */
  #neededBytes = 1;
  #broken: Error | undefined;

  private constructor(socket: Socket, timeoutMs: number) {
    this.#socket = socket;
    guardInput(socket);
    this.#timeoutMs = timeoutMs;
    socket.setNoDelay(true);
    socket.on('data', (chunk) => this.#receive(chunk));
    socket.on('error', (error) => this.break(error));
    socket.on('close', () => this.break(new Error('the connection broke')));
  }

  /**
   * Opens a connection to an address.
   * @param timeoutMs limit for the connection and for each answer.
   * @throws Error when the target does not accept the connection in time.
   */
  static async open({ host, port }: Address, timeoutMs: number): Promise<BeanstalkConnection> {
    const socket = connect(port, host);
    try {
      await withTimeout(once(socket, 'connect'), timeoutMs);
    } catch (error) {
      socket.destroy();
      throw error;
    }
    return new BeanstalkConnection(socket, timeoutMs);
  }

  get broken(): boolean {
    return this.#broken !== undefined;
  }

  /**
   * Sends a command, with its job if there is one, and resolves to the answer. A timeout breaks the connection.
   */
  async call(command: string, body?: Buffer): Promise<Reply> {
    if (this.#broken) throw this.#broken;
    const reply = new Promise<Reply>((resolve, reject) => {
      this.#pendingReplies.push({ resolve, reject });
    });
    this.#socket.cork();
    this.#socket.write(command + CRLF);
    if (body !== undefined) {
      this.#socket.write(body);
      this.#socket.write(CRLF);
    }
    this.#socket.uncork();
    try {
      return await withTimeout(reply, this.#timeoutMs);
    } catch (error) {
      this.break(error instanceof Error ? error : new Error(String(error)));
      throw error;
    }
  }

  /** Closes the connection. Every pending call rejects with `why`. */
  break(why: Error): void {
    if (this.#broken) return;
    this.#broken = why;
    this.#socket.destroy();
    for (const { reject } of this.#pendingReplies.splice(0)) reject(why);
  }

  #receive(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#sizeBytes += chunk.length;
    if (this.#sizeBytes < this.#neededBytes) return;
    let rest = Buffer.concat(this.#chunks);
    for (;;) {
      const found = readReply(rest);
      if (found === 'nonsense') {
        this.break(new Error('expected a line of an answer'));
        return;
      }
      if (typeof found === 'number') {
        this.#neededBytes = found;
        break;
      }
      rest = rest.subarray(found.length);
      this.#pendingReplies.shift()?.resolve(found.reply);
    }
    this.#chunks = [rest];
    this.#sizeBytes = rest.length;
  }
}

/**
 * Parses the first answer in `bytes`. Returns the answer and its length in bytes; or, for an incomplete
 * answer, the number of bytes that the next parse needs at least; or 'nonsense' if the bytes cannot begin an
 * answer.
 */
function readReply(bytes: Buffer): { reply: Reply; length: number } | number | 'nonsense' {
  const end = bytes.subarray(0, MAX_LINE_BYTES).indexOf(CRLF);
  if (end < 0) return bytes.length >= MAX_LINE_BYTES ? 'nonsense' : bytes.length + 1;
  const words = bytes.toString('latin1', 0, end).split(' ');
  const bodyAt = end + CRLF.length;
  if (!REPLIES_WITH_BODY.has(words[0] ?? '')) return { reply: { words, body: undefined }, length: bodyAt };
  const size = Number(words.at(-1));
  if (!Number.isSafeInteger(size) || size < 0) return 'nonsense';
  const length = bodyAt + size + CRLF.length;
  if (bytes.length < length) return length;
  return { reply: { words, body: Buffer.from(bytes.subarray(bodyAt, bodyAt + size)) }, length };
}

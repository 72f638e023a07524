import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { withTimeout } from '../client/timeout.js';

/** One answer: the words of its line and, where it carries a job, the job's bytes. */
export interface Reply {
  words: string[];
  body: Buffer | undefined;
}

/** Answers whose last word is the size of a body that follows. */
const REPLIES_WITH_BODY = new Set(['RESERVED', 'FOUND', 'OK']);
const CRLF = '\r\n';
/** A server that sends more than this without a line end is not one. */
const MAX_LINE_BYTES = 1024;

interface PendingReply {
  resolve(reply: Reply): void;
  reject(error: Error): void;
}

/** One connection that speaks beanstalkd's protocol: commands go out, answers come in the same order. */
export class BeanstalkConnection {
  readonly #socket: Socket;
  readonly #timeoutMs: number;
  readonly #pendingReplies: PendingReply[] = [];
  #chunks: Buffer[] = [];
  #sizeBytes = 0;
  /** Nothing can be read out of fewer bytes. */
  #neededBytes = 1;
  #broken: Error | undefined;

  private constructor(socket: Socket, timeoutMs: number) {
    this.#socket = socket;
    this.#timeoutMs = timeoutMs;
    socket.setNoDelay(true);
    socket.on('data', (chunk) => this.#receive(chunk));
    socket.on('error', (error) => this.break(error));
    socket.on('close', () => this.break(new Error('the connection broke')));
  }

  /** @param timeoutMs limit for the connection and for each answer. */
  static async open(port: number, timeoutMs: number): Promise<BeanstalkConnection> {
    const socket = connect(port, '127.0.0.1');
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

  /** Sends a command, with the job that belongs to it, and resolves to the answer. Breaks when none comes in time. */
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

  /** Ends the connection; everybody who waits is told why. */
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

/** The first answer in `bytes` and its length; or how many bytes there must be before it is worth looking again. */
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

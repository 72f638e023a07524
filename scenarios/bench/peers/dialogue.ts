import { connect } from 'node:net';
import { type Sequence, START_COMMANDS, type Start } from './sequences.js';

/** Time without input, in milliseconds, after which a server that has not answered QUIT counts as silent. */
const QUIET_MS = 3000;

/** Reply codes of a server to a sequence. */
export interface Answer {
  /** Codes of the replies, without that of QUIT. `closed`: the server closed the connection before QUIT. */
  codes: string;
  /** The last line of each reply. */
  lines: string[];
}

/**
 * Plays a sequence to the server on a port of the loopback address.
 * @throws Error when the server does not reach the state in which the sequence starts
 */
export async function play(port: number, { start, bytes }: Sequence): Promise<Answer> {
  const session = new Session(port);
  try {
    await session.expect('220');
    for (const command of commandsTo(start)) {
      session.send(command);
      await session.expect(command.startsWith('DATA') ? '354' : '250');
    }
    session.send(`${bytes}QUIT\r\n`);
    const lines = await session.rest();
    const codes = lines.map((line) => line.slice(0, 3));
    if (
      codes.at(-1) === '221' &&
      codes.filter((code) => code === '221').length > Number(bytes.includes('QUIT'))
    ) {
      codes.pop();
      lines.pop();
    } else if (!bytes.includes('QUIT')) codes.push(session.isClosed ? 'closed' : 'silent');
    return { codes: codes.join(' '), lines };
  } finally {
    session.close();
  }
}

function commandsTo(start: Start): string[] {
  if (start === 'greeting') return [];
  const names = Object.keys(START_COMMANDS) as Exclude<Start, 'greeting'>[];
  return names.slice(0, names.indexOf(start) + 1).map((name) => START_COMMANDS[name]);
}

class Session {
  readonly #socket;
  #text = '';
  #wake: () => void = () => undefined;
  isClosed = false;

  constructor(port: number) {
    this.#socket = connect({ host: '127.0.0.1', port, noDelay: true });
    this.#socket.on('data', (chunk: Buffer) => {
      this.#text += chunk.toString('latin1');
      this.#wake();
    });
    this.#socket.on('error', () => undefined);
    for (const event of ['end', 'close']) {
      this.#socket.on(event, () => {
        this.isClosed = true;
        this.#wake();
      });
    }
  }

  send(bytes: string): void {
    this.#socket.write(bytes, 'latin1');
  }

  async expect(code: string): Promise<void> {
    const line = await this.#lastLine();
    if (line?.startsWith(code) !== true)
      throw new Error(`the server answered ${JSON.stringify(line ?? 'nothing')}, expected ${code}`);
  }

  /** Returns the last lines of all further replies, until the server closes the connection or falls silent. */
  async rest(): Promise<string[]> {
    const lines: string[] = [];
    for (;;) {
      const line = await this.#lastLine();
      if (line === undefined) return lines;
      lines.push(line);
    }
  }

  close(): void {
    this.#socket.destroy();
  }

  /** Returns the last line of the next reply; undefined when the server is silent or has closed the connection. */
  async #lastLine(): Promise<string | undefined> {
    for (;;) {
      for (let end = this.#text.indexOf('\n'); end >= 0; end = this.#text.indexOf('\n')) {
        const line = this.#text.slice(0, end).trimEnd();
        this.#text = this.#text.slice(end + 1);
        if (line[3] !== '-') return line;
      }
      if (this.isClosed) return undefined;
      const isWoken = await new Promise<boolean>((resolve) => {
        const timer = setTimeout(() => resolve(false), QUIET_MS);
        this.#wake = () => {
          clearTimeout(timer);
          resolve(true);
        };
      });
      if (!isWoken) return undefined;
    }
  }
}

import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

const CONNECT_TIMEOUT_MS = 5000;
const ANSWER_TIMEOUT_MS = 30_000;

interface Message {
  return?: unknown;
  error?: { desc?: string };
  QMP?: unknown;
}

/**
 * A connection to the QEMU monitor of a virtual machine. Answers come in the order of the commands; events
 * are ignored.
 */
export class QmpMonitor {
  readonly #socket: Socket;
  readonly #pending: { done(message: Message): void; failed(error: Error): void }[] = [];
  #partialLine = '';

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.setEncoding('utf8');
    socket.on('data', (text: string) => this.#read(text));
    socket.on('error', () => {});
    socket.on('close', () => {
      for (const { failed } of this.#pending.splice(0)) failed(new Error('the virtual machine has ended'));
    });
  }

  /**
   * Connects to a monitor.
   * @param path path of the monitor's socket; the kernel accepts at most 107 bytes.
   */
  static async open(path: string): Promise<QmpMonitor> {
    const socket = connect(path);
    await once(socket, 'connect', { signal: AbortSignal.timeout(CONNECT_TIMEOUT_MS) });
    const monitor = new QmpMonitor(socket);
    await monitor.execute('qmp_capabilities');
    return monitor;
  }

  /**
   * Runs a command and returns its result.
   * @throws Error with the monitor's message when the monitor refuses, or when the machine ends meanwhile.
   */
  async execute(command: string, args: Readonly<Record<string, unknown>> = {}): Promise<unknown> {
    const answer = new Promise<Message>((done, failed) => {
      const timer = setTimeout(
        () => failed(new Error(`${command}: the monitor did not answer`)),
        ANSWER_TIMEOUT_MS,
      );
      this.#pending.push({
        done: (message) => {
          clearTimeout(timer);
          done(message);
        },
        failed: (error) => {
          clearTimeout(timer);
          failed(error);
        },
      });
    });
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
    const { error, return: value } = await answer;
    if (error !== undefined) throw new Error(`${command}: ${error.desc ?? 'refused'}`);
    return value;
  }

  /** Runs a command of QEMU's human monitor. @returns its output, which is empty on success. */
  async humanCommand(line: string): Promise<string> {
    return String(await this.execute('human-monitor-command', { 'command-line': line })).trim();
  }

  close(): void {
    this.#socket.destroy();
  }

  #read(text: string): void {
    const lines = (this.#partialLine + text).split('\n');
    this.#partialLine = lines.pop() ?? '';
    for (const line of lines) {
      const message = JSON.parse(line) as Message;
      if ('return' in message || message.error !== undefined) this.#pending.shift()?.done(message);
    }
  }
}

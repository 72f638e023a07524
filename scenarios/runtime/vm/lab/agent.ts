import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import type { CommandHost, HostResult } from '../../../../faults/power/host.js';

const CONNECT_TIMEOUT_MS = 3000;
/** Time for a request to the lab VM and its answer, in addition to the command's own time limit. */
const ANSWER_MARGIN_MS = 10_000;

interface Pending {
  done(result: HostResult): void;
  failed(error: Error): void;
}

/** Control group and environment of a command that can be killed through its group. */
export interface GroupedCommand {
  /**
   * Path of the control group below /sys/fs/cgroup. The agent, the program that runs commands in the lab VM,
   * makes the group if it is missing.
   */
  group: string;
  env: Readonly<Record<string, string>>;
}

/** Client of the agent in the lab VM, which runs commands there. */
export class Agent implements CommandHost {
  readonly #socket: Socket;
  readonly #pending = new Map<number, Pending>();
  #partialLine: string[] = [];
  #lastId = 0;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.setEncoding('utf8');
    socket.setNoDelay(true);
    socket.on('data', (text: string) => this.#read(text));
    socket.on('error', () => {});
    socket.on('close', () => {
      for (const { failed } of this.#pending.values()) failed(new Error('the lab VM has gone'));
      this.#pending.clear();
    });
  }

  /**
   * Connects to the agent behind a port of loopback.
   * @throws Error when no agent answers there.
   */
  static async open(port: number): Promise<Agent> {
    const socket = connect(port, '127.0.0.1');
    try {
      await once(socket, 'connect', { signal: AbortSignal.timeout(CONNECT_TIMEOUT_MS) });
      const agent = new Agent(socket);
      // Run a command: QEMU's port forwarding accepts every connection, and only an answer shows that the
      // agent is up.
      await agent.#request(['true'], CONNECT_TIMEOUT_MS, undefined, 0);
      return agent;
    } catch (error) {
      socket.destroy();
      throw error;
    }
  }

  run(command: readonly string[], timeoutMs: number, stdin?: Buffer): Promise<HostResult> {
    return this.#request(command, timeoutMs, stdin, ANSWER_MARGIN_MS);
  }

  /**
   * Runs a command in a control group, without a time limit. Commands start in the order of the calls: a
   * later command that kills the group also kills this one.
   */
  runIn({ group, env }: GroupedCommand, command: readonly string[]): Promise<HostResult> {
    const id = ++this.#lastId;
    return new Promise((done, failed) => {
      this.#pending.set(id, { done, failed });
      this.#socket.write(`${JSON.stringify({ id, command, group, env })}\n`);
    });
  }

  close(): void {
    this.#socket.destroy();
  }

  #request(
    command: readonly string[],
    timeoutMs: number,
    stdin: Buffer | undefined,
    marginMs: number,
  ): Promise<HostResult> {
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      const onTimeout = () => {
        this.#pending.delete(id);
        reject(new Error(`the lab VM did not answer in ${timeoutMs + marginMs} ms: ${command.join(' ')}`));
      };
      const timer = setTimeout(onTimeout, timeoutMs + marginMs);
      this.#pending.set(id, {
        done: (result) => {
          clearTimeout(timer);
          resolve(result);
        },
        failed: (error) => {
          clearTimeout(timer);
          reject(error);
        },
      });
      const input = stdin === undefined ? {} : { stdin: stdin.toString('base64') };
      this.#socket.write(`${JSON.stringify({ id, command, timeoutMs, ...input })}\n`);
    });
  }

  #read(text: string): void {
    const lines = text.split('\n');
    const rest = lines.pop() ?? '';
    for (const line of lines) {
      const { id, ...result } = JSON.parse([...this.#partialLine, line].join('')) as HostResult & {
        id: number;
      };
      this.#partialLine = [];
      this.#pending.get(id)?.done(result);
      this.#pending.delete(id);
    }
    this.#partialLine.push(rest);
  }
}

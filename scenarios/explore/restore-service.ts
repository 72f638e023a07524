import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { KitError } from '../../conformance/errors.js';

/** What the target's own program found in one stored state. */
export interface Restored {
  /** SHA-256 of each message that it holds. */
  live: string[];
  problems: string[];
  /** Why it could not be restored. */
  error: string | undefined;
}

interface Answer {
  live?: number[];
  names?: Record<string, string>;
  problems?: string[];
  error?: string;
}

/** The target's `crashStates.restore` program, asked one state after the other. */
export class RestoreService {
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly #names = new Map<number, string>();
  #said = '';
  #waiting: { resolve: (line: string) => void; reject: (why: Error) => void } | undefined;
  #over = false;

  constructor(command: readonly string[], env: Readonly<Record<string, string>>) {
    const [program = '', ...args] = command;
    this.#child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'], env: { ...process.env, ...env } });
    this.#child.stderr.on('data', (chunk: Buffer) => {
      this.#said = `${this.#said}${chunk.toString()}`.slice(-400);
    });
    createInterface({ input: this.#child.stdout }).on('line', (line) => this.#waiting?.resolve(line));
    this.#child.stdin.on('error', () => {});
    const end = () => {
      this.#over = true;
      this.#waiting?.reject(this.#broken());
    };
    this.#child.on('error', end);
    this.#child.on('close', end);
  }

  /** @throws KitError bad-target when the program ends or answers what cannot be read. */
  async ask(request: Readonly<Record<string, string>>): Promise<Restored> {
    if (this.#over) throw this.#broken();
    const line = await new Promise<string>((resolve, reject) => {
      this.#waiting = { resolve, reject };
      this.#child.stdin.write(`${JSON.stringify(request)}\n`);
    });
    let answer: Answer;
    try {
      answer = JSON.parse(line) as Answer;
    } catch {
      throw new KitError('bad-target', `crashStates.restore: expected JSON, found ${line.slice(0, 80)}`);
    }
    for (const [number, name] of Object.entries(answer.names ?? {})) this.#names.set(Number(number), name);
    const live = (answer.live ?? []).map((number) => this.#names.get(number) ?? `unnamed ${number}`);
    return { live, problems: answer.problems ?? [], error: answer.error };
  }

  #broken(): KitError {
    const words = this.#said.trim().split('\n').at(-1) ?? '';
    return new KitError(
      'bad-target',
      `crashStates.restore ended with code ${this.#child.exitCode}: ${words}`,
    );
  }

  end(): void {
    this.#child.kill('SIGKILL');
  }
}

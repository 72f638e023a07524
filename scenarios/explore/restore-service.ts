import { type ChildProcessByStdio, spawn } from 'node:child_process';
import type { Readable, Writable } from 'node:stream';
import { z } from 'zod';
import { KitError } from '../../conformance/errors.js';
import type { ByteRange } from '../../faults/crash-states/file-bytes.js';
import { atExit } from '../at-exit.js';

/** What is to be restored: a directory as `queue`, or files by name. */
export type Paths = Readonly<Record<string, string>>;

/** What may differ in each file from when it was named before, by its name. */
export type Changed = Readonly<Record<string, readonly ByteRange[]>>;

/** What the target's own program found in one stored state. */
export interface Restored {
  /** SHA-256 of each message that it holds. */
  live: string[];
  problems: string[];
  /** Why it could not be restored: in the program's words, or because it hung, died or answered nonsense. */
  error: string | undefined;
  /** It had no answer when its time was up. */
  late?: true;
}

const Answer = z.object({
  live: z.array(z.int().min(0)).optional(),
  names: z.record(z.string(), z.string()).optional(),
  problems: z.array(z.string()).optional(),
  error: z.string().optional(),
});

/** How it is told that the program has ended by itself. */
export const RESTORE_ENDED = 'crashStates.restore ended with';
/** A program that writes more than this for one state will not stop. */
const LONGEST_ANSWER_BYTES = 64 << 20;
const LONGEST_WORDS = 400;

/** How the program went wrong, in a few words. */
class Failure extends Error {
  readonly how: 'ended' | 'nonsense' | 'late';

  constructor(how: Failure['how'], message: string) {
    super(message);
    this.how = how;
  }
}

/**
 * The target's `crashStates.restore` program, asked one state after the other. One that hangs, dies or answers nonsense is
 * killed, with all that it has started, and that is what was found in the state; for the next one it is started anew.
 */
export class RestoreService {
  readonly #command: readonly string[];
  readonly #env: Readonly<Record<string, string>>;
  #program: Program | undefined;

  constructor(command: readonly string[], env: Readonly<Record<string, string>>) {
    this.#command = command;
    this.#env = env;
    this.#program = new Program(command, env);
  }

  /**
   * @param mostMs so long an answer is waited for.
   * @param changed told to a program that has seen the files before.
   * @throws KitError bad-target when the program cannot be started.
   */
  async ask(paths: Paths, mostMs: number, changed?: Changed): Promise<Restored> {
    const program = this.#program ?? new Program(this.#command, this.#env);
    this.#program = program;
    const request = changed === undefined || !program.wasAsked ? paths : { ...paths, changed };
    try {
      return await program.ask(`${JSON.stringify(request)}\n`, mostMs);
    } catch (error) {
      this.end();
      if (!(error instanceof Failure)) throw error;
      const { how, message } = error;
      return { live: [], problems: [], error: message, ...(how === 'late' ? { late: true } : {}) };
    }
  }

  /** Kills the program and whatever it has started. */
  end(): void {
    this.#program?.kill();
    this.#program = undefined;
  }
}

/** One life of the program. */
class Program {
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly #names = new Map<number, string>();
  readonly #forget = atExit(() => this.kill());
  #wasAsked = false;
  #said = '';
  #bytes = 0;
  /** The beginning of a line. */
  #begun = '';
  #answer: ((line: string) => void) | undefined;
  #fail: ((why: Error) => void) | undefined;
  /** Why nothing more can be asked. */
  #over: Error | undefined;

  constructor([program = '', ...args]: readonly string[], env: Readonly<Record<string, string>>) {
    // In a group of its own: what it starts would keep the state's disk busy.
    this.#child = spawn(program, args, {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, ...env },
      detached: true,
    });
    this.#child.stderr.on('data', (chunk: Buffer) => {
      this.#said = `${this.#said}${chunk.toString()}`.slice(-LONGEST_WORDS);
    });
    this.#child.stdout.on('data', (chunk: Buffer) => {
      this.#bytes += chunk.length;
      if (this.#bytes > LONGEST_ANSWER_BYTES)
        this.#ends(
          new Failure('nonsense', `crashStates.restore: expected one line, it does not stop writing`),
        );
      else this.#heard(chunk.toString('latin1'));
    });
    this.#child.stdout.on('end', () => {
      if (this.#begun !== '') this.#heard('\n');
    });
    this.#child.stdin.on('error', () => {});
    this.#child.on('error', (error) =>
      this.#ends(new KitError('bad-target', `crashStates.restore cannot be started: ${error.message}`)),
    );
    this.#child.on('close', (code, signal) => {
      const words = this.#said.trim().split('\n').at(-1) ?? '';
      this.#ends(
        new Failure('ended', `${RESTORE_ENDED} ${signal ?? `code ${code}`}${words && `: ${words}`}`),
      );
    });
  }

  get wasAsked(): boolean {
    return this.#wasAsked;
  }

  #heard(text: string): void {
    const lines = text.split('\n');
    const last = lines.pop() ?? '';
    for (const more of lines) {
      // Whole lines only: a character may be cut in two at the end of a chunk.
      const line = Buffer.from(this.#begun + more, 'latin1').toString();
      this.#begun = '';
      if (this.#answer === undefined) this.#ends(nonsense('one line for each state', line));
      else this.#answer(line);
      this.#answer = undefined;
    }
    this.#begun += last;
  }

  async ask(line: string, mostMs: number): Promise<Restored> {
    let timer: NodeJS.Timeout | undefined;
    this.#wasAsked = true;
    this.#bytes = 0;
    try {
      const answer = await new Promise<string>((resolve, reject) => {
        if (this.#over !== undefined) reject(this.#over);
        this.#answer = resolve;
        this.#fail = reject;
        timer = setTimeout(() => {
          const seconds = Math.round(mostMs / 100) / 10;
          reject(new Failure('late', `crashStates.restore did not answer within ${seconds} s`));
        }, mostMs);
        this.#child.stdin.write(line);
      });
      // What follows an answer unasked would be taken for that of the next state.
      if (this.#over !== undefined) throw this.#over;
      return this.#read(answer);
    } finally {
      clearTimeout(timer);
      this.#answer = undefined;
      this.#fail = undefined;
    }
  }

  #read(line: string): Restored {
    let json: unknown;
    try {
      json = JSON.parse(line);
    } catch {
      throw nonsense('JSON', line);
    }
    const answer = Answer.safeParse(json);
    if (!answer.success) throw nonsense('an object with live, names, problems or error', line);
    const { live = [], names = {}, problems = [], error } = answer.data;
    for (const [number, name] of Object.entries(names)) this.#names.set(Number(number), name);
    return { live: live.map((number) => this.#names.get(number) ?? `unnamed ${number}`), problems, error };
  }

  #ends(why: Error): void {
    this.#over ??= why;
    this.#fail?.(this.#over);
  }

  kill(): void {
    this.#forget();
    const { pid } = this.#child;
    this.#over ??= new Failure('ended', 'crashStates.restore was ended');
    if (pid === undefined) return;
    try {
      process.kill(-pid, 'SIGKILL');
    } catch {
      // Nobody is left of it.
    }
  }
}

function nonsense(expected: string, line: string): Failure {
  return new Failure('nonsense', `crashStates.restore: expected ${expected}, found ${line.slice(0, 80)}`);
}

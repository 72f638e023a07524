import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync } from 'node:fs';
import { z } from 'zod';
import { KitError } from '../../conformance/errors.js';
import type { ByteRange } from '../../faults/crash-states/file-bytes.js';
import { eventsRead, until } from '../../faults/waiting.js';
import { atExit } from '../at-exit.js';
import { Conversation, makePipe } from '../runtime/pipe.js';

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

const isListOfNumbers = (value: unknown): boolean =>
  Array.isArray(value) && value.every((one) => Number.isSafeInteger(one) && one >= 0);

const Answer = z.object({
  // One check for the list and not one for each number: thousands of answers have hundreds of them.
  live: z.custom<number[]>(isListOfNumbers).optional(),
  names: z.record(z.string(), z.string()).optional(),
  problems: z.array(z.string()).optional(),
  error: z.string().optional(),
});

/** How it is told that the program has ended by itself. */
export const RESTORE_ENDED = 'crashStates.restore ended with';
/** A program that writes more than this for one state will not stop. */
const LONGEST_ANSWER_BYTES = 64 << 20;
const LONGEST_WORDS = 400;
const NEWLINE = 10;
/** So long at a time an answer is waited for with everything else in this process standing still. */
const SLICE_MS = 20;

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
  readonly #child: ChildProcess;
  readonly #talk: Conversation;
  readonly #names: string[] = [];
  readonly #forget = atExit(() => this.kill());
  #wasAsked = false;
  #said = '';
  /** Why nothing more can be asked. */
  #over: Error | undefined;

  constructor([program = '', ...args]: readonly string[], env: Readonly<Record<string, string>>) {
    const [asked, answers] = [makePipe(), makePipe()];
    // In a group of its own: what it starts would keep the state's disk busy.
    this.#child = spawn(program, args, {
      stdio: [asked.reading, answers.writing, 'pipe'],
      env: { ...process.env, ...env },
      detached: true,
    });
    for (const far of [asked.reading, answers.writing]) closeSync(far);
    this.#talk = new Conversation(asked.writing, answers.reading);
    this.#child.stderr?.on('data', (chunk: Buffer) => {
      this.#said = `${this.#said}${chunk.toString()}`.slice(-LONGEST_WORDS);
    });
    this.#child.on('error', (error) => {
      this.#over ??= new KitError('bad-target', `crashStates.restore cannot be started: ${error.message}`);
    });
    this.#child.on('close', (code, signal) => {
      const words = this.#said.trim().split('\n').at(-1) ?? '';
      const how = signal ?? `code ${code}`;
      this.#over ??= new Failure('ended', `${RESTORE_ENDED} ${how}${words && `: ${words}`}`);
    });
  }

  get wasAsked(): boolean {
    return this.#wasAsked;
  }

  async ask(request: string, mostMs: number): Promise<Restored> {
    const late = performance.now() + mostMs;
    this.#wasAsked = true;
    // What it says unasked would be taken for the answer.
    if (this.#talk.waits(0)) {
      const words = this.#talk.read();
      if (words.length > 0) throw nonsense('one line for each state', lineOf(words));
    }
    let left: Buffer = Buffer.from(request);
    const begun: Buffer[] = [];
    for (let bytes = 0; ; ) {
      if (this.#over !== undefined) throw this.#over;
      const sliceMs = Math.max(0, Math.min(SLICE_MS, late - performance.now()));
      left = this.#talk.write(left, sliceMs);
      if (this.#talk.waits(sliceMs)) {
        const chunk = this.#talk.read();
        if (chunk.length === 0) return this.#read(await this.#last(begun, late));
        const end = chunk.indexOf(NEWLINE);
        if (end !== -1) {
          const rest = chunk.subarray(end + 1);
          if (rest.length > 0) throw nonsense('one line for each state', lineOf(rest));
          return this.#read(Buffer.concat([...begun, chunk.subarray(0, end)]).toString());
        }
        begun.push(Buffer.from(chunk));
        bytes += chunk.length;
        if (bytes > LONGEST_ANSWER_BYTES)
          throw new Failure('nonsense', `crashStates.restore: expected one line, it does not stop writing`);
      } else {
        if (performance.now() > late) {
          const seconds = Math.round(mostMs / 100) / 10;
          throw new Failure('late', `crashStates.restore did not answer within ${seconds} s`);
        }
        // Others have waited for so long.
        await eventsRead();
      }
    }
  }

  /** Nothing more will come: the line need not have had an end of its own. */
  async #last(begun: readonly Buffer[], late: number): Promise<string> {
    if (begun.length > 0) return Buffer.concat(begun).toString();
    await until(() => this.#over !== undefined, Math.max(0, late - performance.now()));
    throw this.#over ?? new Failure('late', 'crashStates.restore has closed its output, and does not end');
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
    for (const [number, name] of Object.entries(names)) this.#names[Number(number)] = name;
    return { live: live.map((number) => this.#names[number] ?? `unnamed ${number}`), problems, error };
  }

  kill(): void {
    this.#forget();
    const { pid } = this.#child;
    this.#over ??= new Failure('ended', 'crashStates.restore was ended');
    this.#talk.close();
    if (pid === undefined) return;
    try {
      process.kill(-pid, 'SIGKILL');
    } catch {
      // Nobody is left of it.
    }
  }
}

const lineOf = (bytes: Buffer): string => bytes.toString().split('\n', 1)[0] ?? '';

function nonsense(expected: string, line: string): Failure {
  return new Failure('nonsense', `crashStates.restore: expected ${expected}, found ${line.slice(0, 80)}`);
}

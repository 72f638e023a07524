import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync } from 'node:fs';
import { z } from 'zod';
import { KitError } from '../../../conformance/errors.js';
import { eventsRead, until } from '../../../faults/waiting.js';
import { atExit } from '../../host/at-exit.js';
import { Conversation, makePipe } from './pipe.js';

/** What is to be restored: a directory as `queue`, or files by name. */
export type Paths = Readonly<Record<string, string>>;

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

/** What became of a request for several states. */
export interface Answers {
  /** In their order; fewer than were asked for when the program has failed. */
  restored: Restored[];
  /** How it failed, in one of the others. */
  failed: Restored | undefined;
}

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
  #lives = 0;

  constructor(command: readonly string[], env: Readonly<Record<string, string>>) {
    this.#command = command;
    this.#env = env;
    this.#start();
  }

  #start(): Program {
    this.#lives += 1;
    this.#program = new Program(this.#command, this.#env);
    return this.#program;
  }

  /** Number of the program that is asked next, from 1: another one knows nothing of what the last one was told. */
  get life(): number {
    return this.#program === undefined ? this.#lives + 1 : this.#lives;
  }

  /**
   * @param mostMs so long an answer is waited for.
   * @throws KitError bad-target when the program cannot be started.
   */
  async ask(paths: Paths, mostMs: number): Promise<Restored> {
    const { restored, failed } = await this.askAll(paths, 1, mostMs);
    return restored[0] ?? failed ?? refused('crashStates.restore gave no answer');
  }

  /**
   * Asks for several states in one request.
   * @param mostMs so long the answers are waited for, all together.
   * @throws KitError bad-target when the program cannot be started.
   */
  async askAll(request: object, count: number, mostMs: number): Promise<Answers> {
    const program = this.#program ?? this.#start();
    const restored: Restored[] = [];
    try {
      await program.ask(`${JSON.stringify(request)}\n`, count, mostMs, restored);
      return { restored, failed: undefined };
    } catch (error) {
      this.end();
      if (!(error instanceof Failure)) throw error;
      const late = error.how === 'late' ? { late: true as const } : {};
      return { restored, failed: { ...refused(error.message), ...late } };
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
  #said = '';
  /** The beginning of a line. */
  #begun: Buffer[] = [];
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

  /** @param into gets the answers as they come. */
  async ask(request: string, count: number, mostMs: number, into: Restored[]): Promise<void> {
    const late = performance.now() + mostMs;
    // What it says unasked would be taken for the answer.
    if (this.#talk.waits(0)) {
      const words = this.#talk.read();
      if (words.length > 0) throw tooMuch(words);
    }
    let left: Buffer = Buffer.from(request);
    this.#begun = [];
    while (into.length < count) {
      if (this.#over !== undefined) throw this.#over;
      const sliceMs = Math.max(0, Math.min(SLICE_MS, late - performance.now()));
      left = this.#talk.write(left, sliceMs);
      if (this.#talk.waits(sliceMs)) {
        const chunk = this.#talk.read();
        if (chunk.length > 0) this.#take(chunk, count, into);
        else into.push(this.#read(await this.#last(late)));
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

  /** Reads the lines of which this is the next part. */
  #take(chunk: Buffer, count: number, into: Restored[]): void {
    let at = 0;
    for (
      let end = chunk.indexOf(NEWLINE);
      end !== -1 && into.length < count;
      end = chunk.indexOf(NEWLINE, at)
    ) {
      into.push(this.#read(Buffer.concat([...this.#begun, chunk.subarray(at, end)]).toString()));
      this.#begun = [];
      at = end + 1;
    }
    if (at === chunk.length) return;
    if (into.length === count) {
      // Nobody knows which of the two was meant.
      into.pop();
      throw tooMuch(chunk.subarray(at));
    }
    this.#begun.push(Buffer.from(chunk.subarray(at)));
    if (this.#begun.reduce((sum, { length }) => sum + length, 0) > LONGEST_ANSWER_BYTES)
      throw new Failure('nonsense', `crashStates.restore: expected one line, it does not stop writing`);
  }

  /** Nothing more will come: the last line need not have had an end of its own. */
  async #last(late: number): Promise<string> {
    const line = Buffer.concat(this.#begun).toString();
    this.#begun = [];
    if (line !== '') return line;
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

/** The queue could not be restored. */
const refused = (error: string): Restored => ({ live: [], problems: [], error });

const tooMuch = (bytes: Buffer): Failure =>
  nonsense('one line for each state', bytes.toString().split('\n', 1)[0] ?? '');

function nonsense(expected: string, line: string): Failure {
  return new Failure('nonsense', `crashStates.restore: expected ${expected}, found ${line.slice(0, 80)}`);
}

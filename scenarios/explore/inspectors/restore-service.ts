import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync } from 'node:fs';
import { z } from 'zod';
import { KitError } from '../../../conformance/errors.js';
import { processPendingEvents, until } from '../../../faults/waiting.js';
import { atExit } from '../../host/at-exit.js';
import { makePipe, PipeChannel } from './pipe.js';

/** What is to be restored. */
export interface RestorePaths {
  /** The directory. */
  queue: string;
}

/** What the target's own program found in one stored state. */
export interface Restored {
  /** SHA-256 of each message that it holds. */
  live: string[];
  problems: string[];
  /** Why it could not be restored: in the program's words, or because it hung, died or answered nonsense. */
  error: string | undefined;
  /** It had no answer when its time was up. */
  timedOut?: true;
}

const isNumberList = (value: unknown): boolean =>
  Array.isArray(value) && value.every((one) => Number.isSafeInteger(one) && one >= 0);

const Answer = z.object({
  // One check for the list and not one for each number: thousands of answers have hundreds of them.
  live: z.custom<number[]>(isNumberList).optional(),
  names: z.record(z.string(), z.string()).optional(),
  problems: z.array(z.string()).optional(),
  error: z.string().optional(),
});

/** How it is told that the program has ended by itself. */
export const RESTORE_ENDED_PREFIX = 'crashStates.restore ended with';
/** A program that writes more than this for one state will not stop. */
const MAX_ANSWER_BYTES = 64 << 20;
const MAX_STDERR_CHARS = 400;
const NEWLINE = 10;
/** So long at a time an answer is waited for with everything else in this process standing still. */
const POLL_SLICE_MS = 20;

/** How the program went wrong, in a few words. */
class RestoreFailure extends Error {
  readonly how: 'ended' | 'nonsense' | 'late';

  constructor(how: RestoreFailure['how'], message: string) {
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
  #program: RestoreProcess | undefined;

  constructor(command: readonly string[], env: Readonly<Record<string, string>>) {
    this.#command = command;
    this.#env = env;
    this.#start();
  }

  #start(): RestoreProcess {
    this.#program = new RestoreProcess(this.#command, this.#env);
    return this.#program;
  }

  /**
   * @param timeoutMs so long an answer is waited for.
   * @throws KitError bad-target when the program cannot be started.
   */
  async ask(paths: RestorePaths, timeoutMs: number): Promise<Restored> {
    const program = this.#program ?? this.#start();
    try {
      return await program.ask(`${JSON.stringify(paths)}\n`, timeoutMs);
    } catch (error) {
      this.end();
      if (!(error instanceof RestoreFailure)) throw error;
      const timedOut = error.how === 'late' ? { timedOut: true as const } : {};
      return { ...restoreError(error.message), ...timedOut };
    }
  }

  /** Kills the program and whatever it has started. */
  end(): void {
    this.#program?.kill();
    this.#program = undefined;
  }
}

/** One life of the program. */
class RestoreProcess {
  readonly #child: ChildProcess;
  readonly #channel: PipeChannel;
  readonly #names: string[] = [];
  readonly #cancelAtExit = atExit(() => this.kill());
  #stderrTail = '';
  /** The beginning of a line. */
  #partialLine: Buffer[] = [];
  /** Why nothing more can be asked. */
  #failure: Error | undefined;

  constructor([program = '', ...args]: readonly string[], env: Readonly<Record<string, string>>) {
    const [requests, answers] = [makePipe(), makePipe()];
    // In a group of its own: what it starts would keep the state's disk busy.
    this.#child = spawn(program, args, {
      stdio: [requests.readFd, answers.writeFd, 'pipe'],
      env: { ...process.env, ...env },
      detached: true,
    });
    for (const childEnd of [requests.readFd, answers.writeFd]) closeSync(childEnd);
    this.#channel = new PipeChannel(requests.writeFd, answers.readFd);
    this.#child.stderr?.on('data', (chunk: Buffer) => {
      this.#stderrTail = `${this.#stderrTail}${chunk.toString()}`.slice(-MAX_STDERR_CHARS);
    });
    this.#child.on('error', (error) => {
      this.#failure ??= new KitError('bad-target', `crashStates.restore cannot be started: ${error.message}`);
    });
    this.#child.on('close', (code, signal) => {
      const lastLine = this.#stderrTail.trim().split('\n').at(-1) ?? '';
      const how = signal ?? `code ${code}`;
      this.#failure ??= new RestoreFailure(
        'ended',
        `${RESTORE_ENDED_PREFIX} ${how}${lastLine && `: ${lastLine}`}`,
      );
    });
  }

  async ask(request: string, timeoutMs: number): Promise<Restored> {
    const deadlineMs = performance.now() + timeoutMs;
    // What it says unasked would be taken for the answer.
    if (this.#channel.waitReadable(0)) {
      const unexpected = this.#channel.read();
      if (unexpected.length > 0) throw unexpectedOutput(unexpected);
    }
    let left: Buffer = Buffer.from(request);
    this.#partialLine = [];
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure;
      const sliceMs = Math.max(0, Math.min(POLL_SLICE_MS, deadlineMs - performance.now()));
      left = this.#channel.write(left, sliceMs);
      if (this.#channel.waitReadable(sliceMs)) {
        const chunk = this.#channel.read();
        const line = chunk.length > 0 ? this.#takeLine(chunk) : await this.#readLastLine(deadlineMs);
        if (line !== undefined) return this.#parseAnswer(line);
      } else {
        if (performance.now() > deadlineMs) {
          const seconds = Math.round(timeoutMs / 100) / 10;
          throw new RestoreFailure('late', `crashStates.restore did not answer within ${seconds} s`);
        }
        // Others have waited for so long.
        await processPendingEvents();
      }
    }
  }

  /** Takes the next part of the answer; returns the line when this was the end of it. */
  #takeLine(chunk: Buffer): string | undefined {
    const end = chunk.indexOf(NEWLINE);
    // Two answers to one request: nobody knows which of them was meant.
    if (end !== -1 && end + 1 < chunk.length) throw unexpectedOutput(chunk.subarray(end + 1));
    this.#partialLine.push(Buffer.from(end === -1 ? chunk : chunk.subarray(0, end)));
    if (end !== -1) return Buffer.concat(this.#partialLine).toString();
    if (this.#partialLine.reduce((sum, { length }) => sum + length, 0) > MAX_ANSWER_BYTES)
      throw new RestoreFailure(
        'nonsense',
        `crashStates.restore: expected one line, it does not stop writing`,
      );
    return undefined;
  }

  /** Nothing more will come: the last line need not have had an end of its own. */
  async #readLastLine(deadlineMs: number): Promise<string> {
    const line = Buffer.concat(this.#partialLine).toString();
    this.#partialLine = [];
    if (line !== '') return line;
    await until(() => this.#failure !== undefined, Math.max(0, deadlineMs - performance.now()));
    throw (
      this.#failure ??
      new RestoreFailure('late', 'crashStates.restore has closed its output, and does not end')
    );
  }

  #parseAnswer(line: string): Restored {
    let json: unknown;
    try {
      json = JSON.parse(line);
    } catch {
      throw badAnswer('JSON', line);
    }
    const answer = Answer.safeParse(json);
    if (!answer.success) throw badAnswer('an object with live, names, problems or error', line);
    const { live = [], names = {}, problems = [], error } = answer.data;
    for (const [number, name] of Object.entries(names)) this.#names[Number(number)] = name;
    return { live: live.map((number) => this.#names[number] ?? `unnamed ${number}`), problems, error };
  }

  kill(): void {
    this.#cancelAtExit();
    const { pid } = this.#child;
    this.#failure ??= new RestoreFailure('ended', 'crashStates.restore was ended');
    this.#channel.close();
    if (pid === undefined) return;
    try {
      process.kill(-pid, 'SIGKILL');
    } catch {
      // Nobody is left of it.
    }
  }
}

/** The queue could not be restored. */
const restoreError = (error: string): Restored => ({ live: [], problems: [], error });

const unexpectedOutput = (bytes: Buffer): RestoreFailure =>
  badAnswer('one line for each state', bytes.toString().split('\n', 1)[0] ?? '');

function badAnswer(expected: string, line: string): RestoreFailure {
  return new RestoreFailure(
    'nonsense',
    `crashStates.restore: expected ${expected}, found ${line.slice(0, 80)}`,
  );
}

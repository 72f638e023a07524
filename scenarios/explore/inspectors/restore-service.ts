import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync } from 'node:fs';
import { z } from 'zod';
import { KitError } from '../../../conformance/errors.js';
import { limit } from '../../../conformance/limits.js';
import { processPendingEvents, until } from '../../../faults/waiting.js';
import { atExit } from '../../host/at-exit.js';
import { targetEnvironment } from '../../host/registry.js';
import { makePipe, PipeChannel } from './pipe.js';

/** The request to a restore program. */
export interface RestorePaths {
  /** Path of the directory to restore. */
  queue: string;
}

/** The answer of the target's restore program for one stored state. */
export interface Restored {
  /** SHA-256 of each message that the state holds. */
  live: string[];
  /** Problems that the program reports. */
  problems: string[];
  /** Reason of a failure: the program's own message, or that it hung, ended or gave a wrong answer. */
  error: string | undefined;
  /** True when the program did not answer in time. */
  timedOut?: true;
}

const isNumberList = (value: unknown): boolean =>
  Array.isArray(value) && value.every((one) => Number.isSafeInteger(one) && one >= 0);

/** One line of the restore program's output. */
const Answer = z.object({
  // Check the list as a whole and not each number by a schema: thousands of answers have hundreds of numbers.
  live: z.custom<number[]>(isNumberList).optional(),
  names: z.record(z.string(), z.string()).optional(),
  problems: z.array(z.string()).optional(),
  error: z.string().optional(),
});

/** Beginning of the error message when the program has ended by itself. */
export const RESTORE_ENDED_PREFIX = 'crashStates.restore ended with';
const MAX_STDERR_CHARS = 400;
const NEWLINE = 10;
/** Longest wait in milliseconds that blocks this process, before the event loop runs again. */
const POLL_SLICE_MS = 20;

/** Thrown when the program fails on one state. */
class RestoreFailure extends Error {
  readonly how: 'ended' | 'nonsense' | 'late';

  constructor(how: RestoreFailure['how'], message: string) {
    super(message);
    this.how = how;
  }
}

/**
 * The target's `crashStates.restore` program, which restores one state after the other. A program that
 * hangs, ends or gives a wrong answer is killed with everything that it has started. The state then counts
 * as not recovered, and the program is started again for the next one.
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
   * Asks the program to restore a directory.
   * @param timeoutMs upper bound for the answer.
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

  /** Kills the program and everything that it has started. May be called twice. */
  end(): void {
    this.#program?.kill();
    this.#program = undefined;
  }
}

/** One process of the restore program. */
class RestoreProcess {
  readonly #child: ChildProcess;
  readonly #channel: PipeChannel;
  /** SHA-256 of each message, by the number that the program uses for it. */
  readonly #names: string[] = [];
  readonly #cancelAtExit = atExit(() => this.kill());
  #stderrTail = '';
  /** Parts of an answer whose end has not come yet. */
  #partialLine: Buffer[] = [];
  /** First failure of the process. The process gets no more requests after it. */
  #failure: Error | undefined;

  constructor([program = '', ...args]: readonly string[], env: Readonly<Record<string, string>>) {
    const [requests, answers] = [makePipe(), makePipe()];
    // Use a new process group, so that `kill` reaches its children too: a child would keep the disk of the
    // state busy.
    this.#child = spawn(program, args, {
      stdio: [requests.readFd, answers.writeFd, 'pipe'],
      env: { ...targetEnvironment(), ...env },
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

  /**
   * Sends one line and waits for the line that answers it.
   * @throws RestoreFailure when the program hangs, ends or gives a wrong answer; KitError bad-target when it
   *   cannot be started.
   */
  async ask(request: string, timeoutMs: number): Promise<Restored> {
    const deadlineMs = performance.now() + timeoutMs;
    // Output before the request would be taken for the answer.
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
        // The poll blocked the event loop. Let other events run, among them the exit of the program.
        await processPendingEvents();
      }
    }
  }

  /** Adds the next part of the answer. Returns the line when it is complete. */
  #takeLine(chunk: Buffer): string | undefined {
    const end = chunk.indexOf(NEWLINE);
    // Refuse two answers to one request: it is unknown which one is right.
    if (end !== -1 && end + 1 < chunk.length) throw unexpectedOutput(chunk.subarray(end + 1));
    this.#partialLine.push(Buffer.from(end === -1 ? chunk : chunk.subarray(0, end)));
    if (end !== -1) return Buffer.concat(this.#partialLine).toString();
    if (this.#partialLine.reduce((sum, { length }) => sum + length, 0) > limit('restore-answer-bytes'))
      throw new RestoreFailure(
        'nonsense',
        `crashStates.restore: expected one line, it does not stop writing`,
      );
    return undefined;
  }

  /** Returns the answer after the program has closed its output. The last line may lack its newline. */
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

  /** Parses an answer, and translates its numbers into digests. */
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

  /** Kills the process and everything that it has started. */
  kill(): void {
    this.#cancelAtExit();
    const { pid } = this.#child;
    this.#failure ??= new RestoreFailure('ended', 'crashStates.restore was ended');
    this.#channel.close();
    if (pid === undefined) return;
    try {
      process.kill(-pid, 'SIGKILL');
    } catch {
      // The process group has already ended.
    }
  }
}

/** Makes the answer for a state that could not be restored. */
const restoreError = (error: string): Restored => ({ live: [], problems: [], error });

const unexpectedOutput = (bytes: Buffer): RestoreFailure =>
  badAnswer('one line for each state', bytes.toString().split('\n', 1)[0] ?? '');

function badAnswer(expected: string, line: string): RestoreFailure {
  return new RestoreFailure(
    'nonsense',
    `crashStates.restore: expected ${expected}, found ${line.slice(0, 80)}`,
  );
}

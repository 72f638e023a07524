import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { KitError } from '../../conformance/errors.js';

/** Exit of a program, with its output. */
export interface ProgramResult {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  /** The last lines of stderr, at most MAX_STDERR_LINES and one line without a newline. */
  lastStderrLines: string[];
}

export interface RunOptions {
  /** Signal that, when it is aborted, makes the program get SIGTERM. */
  signal: AbortSignal;
  /** Upper bound of the run, in milliseconds. A program that takes longer is hung: it is stopped. */
  timeoutMs: number;
  /**
   * Variables for the program's environment: the marker by which `clean` finds it after its parent was
   * killed.
   */
  env: Readonly<Record<string, string>>;
  /** Receives each line of stderr. */
  progress(line: string): void;
}

const MAX_STDERR_LINES = 5;
/** Time between SIGTERM and SIGKILL for a program that is stopped, in milliseconds. */
const STOP_GRACE_MS = 20_000;

/**
 * Runs a Node program to its end in a separate process, so that concurrent hunts can use one processor each
 * and a failure in one hunt does not affect the others. The process leads its own process group: a
 * terminal's Ctrl-C reaches only this process, which then sends one SIGTERM.
 *
 * @throws KitError kit-failed when the program took longer than `timeoutMs`.
 */
export async function runProgram(args: readonly string[], options: RunOptions): Promise<ProgramResult> {
  const { signal, timeoutMs, env, progress } = options;
  const child = spawn(process.execPath, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
    env: { ...process.env, ...env },
  });
  let stdout = '';
  let partialLine = '';
  let timedOut = false;
  const lastLines: string[] = [];
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    const lines = (partialLine + text).split('\n');
    partialLine = lines.pop() ?? '';
    for (const line of lines) {
      progress(line);
      lastLines.push(line);
    }
    lastLines.splice(0, lastLines.length - MAX_STDERR_LINES);
  });
  const kill = () => void child.kill('SIGKILL');
  const stop = () => {
    child.kill('SIGTERM');
    setTimeout(kill, STOP_GRACE_MS).unref();
  };
  const timer = setTimeout(() => {
    timedOut = true;
    stop();
  }, timeoutMs);
  const onExit = () => void child.kill('SIGTERM');
  process.once('exit', onExit);
  signal.addEventListener('abort', stop);
  try {
    const [code, killedBy] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
    if (timedOut) throw new KitError('kit-failed', `${args[0]}: it did not end within ${timeoutMs} ms`);
    return {
      code,
      signal: killedBy,
      stdout,
      lastStderrLines: partialLine === '' ? lastLines : [...lastLines, partialLine],
    };
  } finally {
    clearTimeout(timer);
    process.removeListener('exit', onExit);
    signal.removeEventListener('abort', stop);
  }
}

/**
 * Parses the last line of stdout as a JSON object. Returns undefined when stdout is empty.
 * @throws KitError kit-failed when the line is not a JSON object.
 */
export function parseJsonOutput({
  stdout,
  lastStderrLines,
}: ProgramResult): Record<string, unknown> | undefined {
  const text = stdout.trim();
  if (text === '') return undefined;
  try {
    const value: unknown = JSON.parse(text.split('\n').at(-1) ?? '');
    if (typeof value === 'object' && value !== null) return { ...value };
  } catch {
    // The error below reports this.
  }
  throw new KitError(
    'kit-failed',
    `expected one JSON object on stdout, found: ${text.slice(0, 200)}; ${lastStderrLines.at(-1) ?? ''}`,
  );
}

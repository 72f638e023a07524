import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { KitError } from '../../conformance/errors.js';

/** How a program that prints one JSON object ended. */
export interface ProgramResult {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  /** The last lines of stderr. */
  lastStderrLines: string[];
}

export interface RunOptions {
  /** Ends the program in order when it is aborted. */
  signal: AbortSignal;
  /** A program that takes longer hangs: it is killed. */
  timeoutMs: number;
  /** Added to its environment: the marker by which `clean` finds it when whoever runs it was killed. */
  env: Readonly<Record<string, string>>;
  /** Each line of stderr. */
  progress(line: string): void;
}

const MAX_STDERR_LINES = 5;
/** So long a program that is told to stop may take before it is killed. */
const STOP_GRACE_MS = 20_000;

/**
 * Runs a Node program to its end. It is a process of its own, so that hunts at the same time have a processor each and
 * nothing that one of them breaks reaches the others; and it leads a process group, because what a terminal's
 * Ctrl-C means it is told once, by this process.
 *
 * @throws KitError kit-failed when it took longer than `timeoutMs`.
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
 * The object on stdout, or undefined when there is none.
 * @throws KitError kit-failed when what is there is no JSON object.
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
    // Told below.
  }
  throw new KitError(
    'kit-failed',
    `expected one JSON object on stdout, found: ${text.slice(0, 200)}; ${lastStderrLines.at(-1) ?? ''}`,
  );
}

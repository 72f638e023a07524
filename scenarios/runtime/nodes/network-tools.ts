import { spawn } from 'node:child_process';
import { messageOf } from '../../../conformance/errors.js';
import { collectOutput } from '../../host/output.js';

/** Upper bound for a tool, in ms. Each takes some hundredths of a second. */
const TIMEOUT_MS = 20_000;

/** Thrown when a tool fails. The message has the command and what the tool says. */
export class ToolError extends Error {
  override readonly name = 'ToolError';
  /** What the tool says on stderr. */
  readonly stderr: string;

  constructor(command: readonly string[], stderr: string, cause?: unknown) {
    const why = stderr.trim() === '' ? messageOf(cause ?? 'it failed') : messageOf(stderr);
    super(`${command.join(' ')}: ${why}`, { cause });
    this.stderr = stderr;
  }
}

/**
 * Runs a tool with text on its stdin. Resolves to its stdout.
 * @param env variables in addition to those of this process.
 * @throws ToolError when it cannot be started, or its exit code is not 0.
 */
export function runNetworkTool(
  command: readonly string[],
  input = '',
  env: Readonly<Record<string, string>> = {},
): Promise<string> {
  const [program = '', ...args] = command;
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      stdio: ['pipe', 'pipe', 'pipe'],
      timeout: TIMEOUT_MS,
      // A Ctrl-C must reach only the kit: it would kill a tool between two of its steps.
      detached: true,
      env: { ...process.env, LC_ALL: 'C', ...env },
    });
    const stdout = collectOutput(child.stdout);
    const stderr = collectOutput(child.stderr);
    // The tool may end before it has read everything; its exit code says why.
    child.stdin.on('error', () => {});
    child.stdin.end(input);
    child.once('error', (error) => reject(new ToolError(command, '', error)));
    child.once('close', (code) => {
      if (code === 0) resolve(stdout());
      else reject(new ToolError(command, stderr()));
    });
  });
}

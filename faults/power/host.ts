import { spawn } from 'node:child_process';

/** The exit and the output of a command on a host. */
export interface HostResult {
  code: number | null;
  signal: string | null;
  timedOut: boolean;
  stdout: string;
  stderr: string;
}

/** A machine with its own kernel, on which commands run as root: this one, or a virtual machine. */
export interface CommandHost {
  /** Runs a command, and kills it after `timeoutMs`. */
  run(command: readonly string[], timeoutMs: number, stdin?: Buffer): Promise<HostResult>;
}

/** The machine on which this process runs. */
export const localHost: CommandHost = {
  run([program = '', ...args], timeoutMs, stdin) {
    return new Promise((resolve, reject) => {
      const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'] });
      const texts = { stdout: '', stderr: '' };
      for (const name of ['stdout', 'stderr'] as const) {
        child[name].setEncoding('utf8').on('data', (text: string) => {
          texts[name] += text;
        });
      }
      let timedOut = false;
      const timer = setTimeout(() => {
        timedOut = true;
        child.kill('SIGKILL');
      }, timeoutMs);
      child.stdin.on('error', () => {});
      child.stdin.end(stdin);
      child.on('error', (error) => {
        clearTimeout(timer);
        reject(error);
      });
      child.on('close', (code, signal) => {
        clearTimeout(timer);
        resolve({ code, signal, timedOut, ...texts });
      });
    });
  },
};

/**
 * Runs a shell script on a host. The script ends at its first command that fails.
 * @param values the values of $1, $2, … in the script.
 * @returns the output on stdout.
 * @throws Error with the last lines of stderr when the script fails or takes too long.
 */
export async function runScript(
  host: CommandHost,
  script: string,
  values: readonly string[],
  timeoutMs: number,
): Promise<string> {
  const result = await host.run(['sh', '-euc', script, 'sh', ...values], timeoutMs);
  if (result.code === 0) return result.stdout;
  const how = result.timedOut
    ? `took longer than ${timeoutMs} ms`
    : `ended with ${result.signal ?? `code ${result.code}`}`;
  throw new Error(`${result.stderr.trim().split('\n').slice(-3).join(' | ') || script.trim()} (${how})`);
}

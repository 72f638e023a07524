import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { constants } from 'node:os';
import { join } from 'node:path';
import { STATE_VARIABLE, stateDirectory } from '../host/state-directory.js';
import { packageRoot } from '../host/version.js';

/**
 * Installs the engines that faults and runtimes need, as `npm run setup` does in a checkout: one program and one list of
 * packages serve both. Resolves to the exit code.
 * @param flags.engines `gate` for what the gate of the reference queue needs, `all` for every fault and runtime.
 */
export async function setupCommand({ engines }: { engines: string }): Promise<number> {
  const child = spawn(process.execPath, [join(packageRoot(), 'docker/setup.mjs'), '--engines', engines], {
    // The folder of an installed package may belong to another user: the set-up writes where runs write.
    env: { ...process.env, [STATE_VARIABLE]: stateDirectory() },
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  const forward = (signal: NodeJS.Signals) => void child.kill(signal);
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, forward);
  const [code, signal] = (await once(child, 'exit')) as [number | null, NodeJS.Signals | null];
  return code ?? 128 + (signal === null ? 0 : constants.signals[signal]);
}

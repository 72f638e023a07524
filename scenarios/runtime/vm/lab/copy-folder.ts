import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { KitError, messageOf } from '../../../../conformance/errors.js';
import { type CommandHost, runScript } from '../../../../faults/power/host.js';

const run = promisify(execFile);

/**
 * Upper bound of a folder that is copied, after compression. The folder of a target file holds programs, not
 * data: a larger one is taken for a mistake.
 */
const MAX_FOLDER_BYTES = 64 * 2 ** 20;
const TIMEOUT_MS = 120_000;

/**
 * Copies a folder to the same path on another machine.
 * @throws KitError bad-target when it is too large.
 */
export function stageFolder(host: CommandHost, folder: string): Promise<void> {
  return copyFolder(host, folder, folder);
}

/**
 * Copies a folder to the path `to` on another machine.
 * @throws KitError bad-target when it is too large.
 */
export async function copyFolder(host: CommandHost, folder: string, to: string): Promise<void> {
  const tar = await run('tar', ['-C', folder, '-czf', '-', '.'], {
    encoding: 'buffer',
    maxBuffer: MAX_FOLDER_BYTES,
    timeout: TIMEOUT_MS,
  }).catch((error: unknown) => {
    const why = `expected at most ${MAX_FOLDER_BYTES / 2 ** 20} MiB to copy into the VM`;
    throw new KitError('bad-target', `${folder}: ${why}: ${messageOf(error)}`, { cause: error });
  });
  await runScript(host, 'mkdir -p "$1"', [to], TIMEOUT_MS);
  const unpacked = await host.run(['tar', '-C', to, '-xzf', '-'], TIMEOUT_MS, tar.stdout);
  if (unpacked.code !== 0) throw new Error(`copying ${to} into the VM: ${unpacked.stderr.trim()}`);
}

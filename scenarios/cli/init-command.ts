import { existsSync, writeFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { KitError, messageOf } from '../../conformance/errors.js';
import { EXIT_CODES } from '../../conformance/exit-codes.js';
import { starterTarget } from '../../conformance/target-file/starter.js';
import { commandLine, pathFromHere, schemaLocation } from '../host/command-line.js';
import { log, print } from '../host/console.js';
import { makeDirectories } from '../host/directories.js';

export interface InitFlags {
  protocol: string;
  name: string;
  out?: string;
}

/**
 * Writes a target file to start from, and never overwrites a file. Returns the exit code.
 * @throws KitError bad-usage when the file exists or cannot be written.
 */
export function initCommand(flags: InitFlags): number {
  const out = flags.out ?? `${flags.name}.json`;
  const file = resolve(out);
  const definition = starterTarget(flags.name, flags.protocol);
  const text = `${JSON.stringify({ $schema: schemaLocation(dirname(file)), ...definition }, undefined, 2)}\n`;
  try {
    makeDirectories(dirname(file));
    writeFileSync(file, text, { flag: 'wx' });
  } catch (error) {
    const why = existsSync(file) ? 'it is there already' : messageOf(error);
    throw new KitError('bad-usage', `--out ${out}: expected a file that does not exist: ${why}`, {
      cause: error,
    });
  }
  print(out);
  log(
    `written; put your command into services and your promises into guarantee, then run: ${commandLine('check', pathFromHere(out))}`,
  );
  return EXIT_CODES.pass;
}

import { resolve } from 'node:path';

// This file imports nothing else of the kit: the first check of the program uses it, with very few open files.

/** Environment variable that names the state directory. Targets do not get it. */
export const STATE_VARIABLE = 'PLUGPULL_STATE';

/** Returns the directory in which runs save their evidence. */
export function stateDirectory(): string {
  return resolve(process.env[STATE_VARIABLE] ?? '.plugpull');
}

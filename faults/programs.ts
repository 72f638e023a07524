import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import type { Availability } from './fault.js';

/** The full path of a program, or undefined when it is not on the PATH. */
export function findProgram(name: string): string | undefined {
  for (const folder of (process.env.PATH ?? '').split(delimiter)) {
    const path = join(folder, name);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {}
  }
  return undefined;
}

/** Whether strace is installed; it is not tried here whether the kernel lets it trace. */
export function straceAvailability(): Availability {
  if (findProgram('strace') !== undefined) return { available: true };
  return {
    available: false,
    why: 'strace is not installed',
    remedy: 'install the package strace',
  };
}

export const AVAILABLE: Availability = { available: true };

import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import type { Availability } from './fault.js';

/** Returns the full path of a program, or undefined when it is not on the PATH. */
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

/** Reports whether strace is installed. It does not check whether the kernel allows tracing. */
export function straceAvailability(): Availability {
  if (findProgram('strace') !== undefined) return { available: true };
  return {
    available: false,
    why: 'strace is not installed',
    remedy: 'install the package strace',
  };
}

/** The availability of a fault that every machine supports. */
export const AVAILABLE: Availability = { available: true };

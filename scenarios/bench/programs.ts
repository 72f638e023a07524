import { fileURLToPath } from 'node:url';

/** Path of a program of the reference implementation, which is run and never imported. */
export const programOf = (name: string): string =>
  fileURLToPath(new URL(`../../reference-impl/${name}`, import.meta.url));

/** The kit's own program. */
export const kitProgram: string = fileURLToPath(new URL('../cli/main.js', import.meta.url));

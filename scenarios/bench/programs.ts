import { fileURLToPath } from 'node:url';

/** Path of a program of the reference implementation, which is run and never imported. */
export const referenceProgram = (name: string): string =>
  fileURLToPath(new URL(`../../reference-impl/${name}`, import.meta.url));

/** The kit's own program. */
export const KIT_PROGRAM: string = fileURLToPath(new URL('../cli/main.js', import.meta.url));

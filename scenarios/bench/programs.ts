import { fileURLToPath } from 'node:url';

/** Returns the path of a program of the reference implementation, which the kit runs but never imports. */
export const referenceProgram = (name: string): string =>
  fileURLToPath(new URL(`../../reference-impl/${name}`, import.meta.url));

/** Path of the kit's compiled program. */
export const KIT_PROGRAM: string = fileURLToPath(new URL('../cli/main.js', import.meta.url));

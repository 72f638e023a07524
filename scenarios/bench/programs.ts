import { fileURLToPath } from 'node:url';

/** Returns the path of a program of a reference implementation, such as `synchronous/main.js`. The kit runs it but never imports it. */
export const referenceProgram = (name: string): string =>
  fileURLToPath(new URL(`../../reference-impl/${name}`, import.meta.url));

/** Path of the kit's compiled program. */
export const KIT_PROGRAM: string = fileURLToPath(new URL('../cli/main.js', import.meta.url));

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { KitError } from '../../conformance/errors.js';
import { didYouMean } from '../../conformance/nearest.js';
import { packageRoot } from './version.js';

/** A reference implementation, as far as the kit knows it. All paths are relative to the package. */
export interface Implementation {
  /** Name on the command line, and of the folders below `reference-impl/` and `dist/reference-impl/`. */
  name: string;
  /** What it is, in one line. */
  summary: string;
  targetFile: string;
  /** Compiled program. Its commands are those of `plugpull queue NAME`. */
  program: string;
  /** Modes of a hunt for planted bugs that it does not offer, each with the reason. */
  missingModes: Readonly<Partial<Record<'gate' | 'simulate' | 'explore' | 'flakey', string>>>;
}

/** All reference implementations. A further one is one entry more. */
export const IMPLEMENTATIONS: readonly Implementation[] = [
  {
    name: 'synchronous',
    summary: 'a synchronous message queue behind a mail gateway',
    targetFile: 'conformance/targets/reference.json',
    program: 'dist/reference-impl/synchronous/main.js',
    missingModes: {},
  },
  {
    name: 'checkpointed',
    summary: 'a queue in memory with checkpoints and a log, behind HTTP',
    targetFile: 'conformance/targets/checkpointed.json',
    program: 'dist/reference-impl/checkpointed/main.js',
    missingModes: {},
  },
];

/** Name of the implementation that a command uses when the user names none. */
export const DEFAULT_IMPLEMENTATION = 'synchronous';

/** Reference implementations, and the folder of the package that contains them. */
export interface ImplementationPackage {
  root: string;
  implementations: readonly Implementation[];
}

/** The reference implementations of this package. */
export const OWN_PACKAGE: ImplementationPackage = { root: packageRoot(), implementations: IMPLEMENTATIONS };

/**
 * Finds an implementation by its name.
 * @param where what names it, for the error: `--implementation` or a key of a file.
 * @throws KitError with `code` when there is none of this name.
 */
export function findImplementation(
  name: string,
  where: string,
  code: 'bad-usage' | 'bad-target' = 'bad-usage',
  implementations: readonly Implementation[] = IMPLEMENTATIONS,
): Implementation {
  const found = implementations.find((one) => one.name === name);
  if (found !== undefined) return found;
  const names = implementations.map((one) => one.name);
  throw new KitError(
    code,
    `${where} ${name}: no such implementation, expected one of ${names.join(', ')}${didYouMean(name, names)}`,
  );
}

/** Reports whether the compiled program of an implementation exists. */
export function isBuilt({ program }: Implementation, root = packageRoot()): boolean {
  return existsSync(join(root, program));
}

import { cpSync, existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { KitError, messageOf } from '../../conformance/errors.js';
import { removeTree } from '../../faults/files/remove-tree.js';
import { findImplementation, type ImplementationPackage, OWN_PACKAGE } from '../host/implementations.js';
import { COMMON_FOLDER, type PlantedBug } from './definition.js';

/** The only function of the TypeScript compiler that this module uses. */
interface Transpiler {
  transpileModule(
    source: string,
    options: { compilerOptions: unknown; fileName: string },
  ): { outputText: string };
}

/** Paths in a copy that contains a planted bug. */
export interface PlantedPaths {
  /** The copy's target file. */
  target: string;
  /** The copy's compiled program. */
  program: string;
}

/**
 * Copies the built reference implementation that the bug names, with what it shares with others, and plants the bug in
 * the copy.
 * @param dir directory of the copy, which is emptied first. It gets the layout of the package, so that the
 *   relative paths in the target file lead to the copy.
 * @throws KitError bad-target when the text to change is not in the source exactly once; kit-failed when the
 *   implementation is not compiled.
 */
export function plant(
  bug: PlantedBug,
  dir: string,
  source: ImplementationPackage = OWN_PACKAGE,
): PlantedPaths {
  const { root, implementations } = source;
  const { name, targetFile, program } = findImplementation(
    bug.implementation,
    `planted bug ${bug.id}: implementation:`,
    'bad-target',
    implementations,
  );
  for (const file of [targetFile, program])
    if (!existsSync(join(root, file)))
      throw new KitError(
        'kit-failed',
        `planted bug ${bug.id}: ${join(root, file)} is not there: expected the implementation ${name}, compiled`,
      );
  const plantedCode = plantedSource(bug, root);
  removeTree(dir);
  for (const folder of [name, COMMON_FOLDER].map((one) => join('dist/reference-impl', one)))
    if (existsSync(join(root, folder))) cpSync(join(root, folder), join(dir, folder), { recursive: true });
  cpSync(join(root, 'package.json'), join(dir, 'package.json'));
  symlinkSync(join(root, 'node_modules'), join(dir, 'node_modules'));
  const compiled = join(dir, 'dist/reference-impl', bug.file.replace(/\.ts$/, '.js'));
  writeFileSync(compiled, plantedCode);
  const definition = JSON.parse(readFileSync(join(root, targetFile), 'utf8')) as Record<string, unknown>;
  const target = join(dir, dirname(targetFile), 'planted.json');
  mkdirSync(dirname(target), { recursive: true });
  writeFileSync(target, JSON.stringify({ ...definition, $schema: undefined, name: bug.id }));
  return { target, program: join(dir, program) };
}

/**
 * Compiles the source file with the bug in it, and returns the JavaScript.
 * @param root folder of the package with the sources.
 * @throws KitError bad-target when the text to change is not in the source exactly once.
 */
export function plantedSource(bug: PlantedBug, root = OWN_PACKAGE.root): string {
  const source = join(root, 'reference-impl', bug.file);
  return transpile(applyBug(bug, source), source);
}

function applyBug(bug: PlantedBug, source: string): string {
  let text: string;
  try {
    text = readFileSync(source, 'utf8');
  } catch (error) {
    throw new KitError('bad-target', `planted bug ${bug.id}: file: ${messageOf(error)}`, { cause: error });
  }
  const parts = text.split(bug.find);
  if (parts.length !== 2) {
    throw new KitError(
      'bad-target',
      `planted bug ${bug.id}: find: expected its text exactly once in ${source}, found it ${parts.length - 1} times`,
    );
  }
  return parts.join(bug.replace);
}

function transpile(text: string, fileName: string): string {
  // Name the module kind: otherwise the compiler looks for a package.json, and here it has no file system
  // to do so.
  const compilerOptions = { target: 'ES2023', module: 'ESNext', verbatimModuleSyntax: true };
  return loadCompiler().transpileModule(text, { compilerOptions, fileName }).outputText;
}

/**
 * Loads the TypeScript compiler, which is installed only in a checkout: users of the package plant no bugs.
 * @throws KitError kit-failed when the compiler is not installed.
 */
function loadCompiler(): Transpiler {
  const name = 'typescript';
  try {
    return createRequire(import.meta.url)(name) as Transpiler;
  } catch (error) {
    throw new KitError(
      'kit-failed',
      `planting a bug needs the package ${name}: run it in a checkout, after npm install`,
      {
        cause: error,
      },
    );
  }
}

import { cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { KitError, messageOf } from '../../conformance/errors.js';
import { REFERENCE_TARGET } from '../../conformance/targets/reference.js';
import { removeTree } from '../../faults/files/remove-tree.js';
import { packageRoot } from '../host/version.js';
import type { PlantedBug } from './definition.js';

/** The only function of the TypeScript compiler that this module uses. */
interface Transpiler {
  transpileModule(
    source: string,
    options: { compilerOptions: unknown; fileName: string },
  ): { outputText: string };
}

/**
 * Copies the built reference implementation and plants the bug in the copy.
 * @param dir directory of the copy, which is emptied first. It gets the layout of the package, so that the
 *   relative paths in the target file lead to the copy.
 * @returns path of the copy's target file.
 * @throws KitError bad-target when the text to change is not in the source exactly once.
 */
export function plant(bug: PlantedBug, dir: string): string {
  const root = packageRoot();
  const plantedCode = plantedSource(bug);
  removeTree(dir);
  mkdirSync(join(dir, 'conformance/targets'), { recursive: true });
  cpSync(join(root, 'dist/reference-impl'), join(dir, 'dist/reference-impl'), { recursive: true });
  cpSync(join(root, 'package.json'), join(dir, 'package.json'));
  symlinkSync(join(root, 'node_modules'), join(dir, 'node_modules'));
  const compiled = join(dir, 'dist/reference-impl', bug.file.replace(/\.ts$/, '.js'));
  writeFileSync(compiled, plantedCode);
  const target = JSON.parse(readFileSync(REFERENCE_TARGET, 'utf8')) as Record<string, unknown>;
  const file = join(dir, 'conformance/targets/planted.json');
  writeFileSync(file, JSON.stringify({ ...target, $schema: undefined, name: bug.id }));
  return file;
}

/**
 * Compiles the source file with the bug in it, and returns the JavaScript.
 * @throws KitError bad-target when the text to change is not in the source exactly once.
 */
export function plantedSource(bug: PlantedBug): string {
  const source = join(packageRoot(), 'reference-impl', bug.file);
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

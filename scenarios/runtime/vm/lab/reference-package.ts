import { mkdirSync, mkdtempSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import {
  copyContext,
  digestOf,
  referenceFiles,
  referencePrograms,
} from '../../../../docker/image/context.js';
import { removeTree } from '../../../../faults/files/remove-tree.js';
import type { CommandHost } from '../../../../faults/power/host.js';
import { stateDirectory } from '../../../host/registry.js';
import { packageRoot } from '../../../host/version.js';
import { copyFolder } from './copy-folder.js';

const TIMEOUT_MS = 20_000;
/** Modules with compiled parts, which the bundle does not include: they stay separate files. */
const NATIVE_MODULES = ['koffi', 'mmap-io', '@node-rs/crc32'];
/** Defines `require` for bundled CommonJS code. */
const REQUIRE_BANNER =
  "import { createRequire as requireFrom } from 'node:module'; const require = requireFrom(import.meta.url);";

/** The only function of the bundler that is used here. */
interface Bundler {
  buildSync(options: Readonly<Record<string, unknown>>): unknown;
}

/**
 * Copies the reference implementations, or a changed copy of one, to another machine, with the layout that it
 * has in an image. The image of the machine therefore contains nothing of it, and need not be built again
 * when a source changes.
 *
 * A bundler, if it is installed, turns the hundreds of files of each into one: with an emulated processor,
 * finding and reading the files takes half of the time of a start.
 * @param built folder with the compiled files.
 * @returns the folder there, named by its content; an existing folder is not copied again.
 */
export async function stagePackage(host: CommandHost, built: string): Promise<string> {
  const files = referenceFiles(packageRoot(), built).map(({ source, to }) => ({
    source,
    to: to.replace(/^reference\/(?:package\/)?/, ''),
  }));
  const folder = `/lab/packages/${digestOf(files, REQUIRE_BANNER)}`;
  const existing = await host.run(['test', '-e', `${folder}/package.json`], TIMEOUT_MS);
  if (existing.code === 0) return folder;
  const workDir = join(stateDirectory(), 'images');
  mkdirSync(workDir, { recursive: true });
  const dir = mkdtempSync(join(workDir, 'package-'));
  try {
    copyContext(files, dir);
    for (const program of referencePrograms(built))
      bundle(join(built, program), join(dir, 'dist/reference-impl', program));
    await copyFolder(host, dir, folder);
  } finally {
    removeTree(dir);
  }
  return folder;
}

function bundle(program: string, outfile: string): void {
  const name = 'esbuild';
  let bundler: Bundler;
  try {
    bundler = createRequire(import.meta.url)(name) as Bundler;
  } catch {
    return;
  }
  const output = {
    outfile,
    allowOverwrite: true,
    format: 'esm',
    platform: 'node',
    banner: { js: REQUIRE_BANNER },
  };
  bundler.buildSync({
    entryPoints: [program],
    bundle: true,
    minify: true,
    external: NATIVE_MODULES,
    logLevel: 'error',
    ...output,
  });
}

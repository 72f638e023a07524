import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { copyContext, digestOf, referenceFiles } from '../../../../docker/image/context.js';
import type { CommandHost } from '../../../../faults/power/host.js';
import { stateDirectory } from '../../../host/registry.js';
import { packageRoot } from '../../../host/version.js';
import { copyFolder } from './copy-folder.js';

const TIMEOUT_MS = 20_000;
const MAIN_PROGRAM = 'dist/reference-impl/synchronous/main.js';
/** Those with compiled parts, which stay files of their own. */
const NATIVE_MODULES = ['koffi', 'mmap-io', '@node-rs/crc32'];
/** For what is bundled and was no module. */
const REQUIRE_BANNER =
  "import { createRequire as requireFrom } from 'node:module'; const require = requireFrom(import.meta.url);";

/** The one function of the bundler that is used here. */
interface Bundler {
  buildSync(options: Readonly<Record<string, unknown>>): unknown;
}

/**
 * Brings the reference implementation, or a changed copy of it, to another machine, where it lies as in an image: so the
 * image of the machine has none of it, and need not be built again when a source changes.
 *
 * Its three hundred files are brought as one where the bundler is installed: with a processor that is made in software,
 * looking for them and reading them is half of the time that a start takes.
 * @param built folder with the compiled files.
 * @returns its folder there, named by its content; one that is there already is not brought again.
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
    bundle(join(built, 'synchronous/main.js'), join(dir, MAIN_PROGRAM));
    await copyFolder(host, dir, folder);
  } finally {
    rmSync(dir, { recursive: true, force: true });
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

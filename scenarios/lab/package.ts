import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { digestOf, referenceFiles, stage } from '../../docker/image/context.js';
import type { CommandHost } from '../../faults/power/host.js';
import { stateDirectory } from '../residue/registry.js';
import { packageRoot } from '../version.js';
import { unpackFolder } from './stage.js';

const TIMEOUT_MS = 20_000;

/**
 * Brings the reference implementation, or a changed copy of it, to another machine, where it lies as in an image: so the
 * image of the machine has none of it, and need not be built again when a source changes.
 * @param built folder with the compiled files.
 * @returns its folder there, named by its content; one that is there already is not brought again.
 */
export async function stagePackage(host: CommandHost, built: string): Promise<string> {
  const files = referenceFiles(packageRoot(), built).map(({ source, to }) => ({
    source,
    to: to.replace(/^reference\/(?:package\/)?/, ''),
  }));
  const folder = `/lab/packages/${digestOf(files)}`;
  const there = await host.run(['test', '-e', `${folder}/package.json`], TIMEOUT_MS);
  if (there.code === 0) return folder;
  const workDir = join(stateDirectory(), 'images');
  mkdirSync(workDir, { recursive: true });
  const dir = mkdtempSync(join(workDir, 'package-'));
  try {
    stage(files, dir);
    await unpackFolder(host, dir, folder);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
  return folder;
}

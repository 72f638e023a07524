import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import type Dockerode from 'dockerode';
import { hasImage } from '../../../../docker/image/build-image.js';
import { removeTree } from '../../../../faults/files/remove-tree.js';

/**
 * Name of the image for services that name no image. It contains only folders and links, no programs.
 * Increase the number in the tag when `makeRootImage` makes other folders or links: an existing image with
 * this name is used as it is.
 */
export const ROOT_IMAGE = 'plugpull/lab-root:1';
/** Folder of the lab VM with the programs and libraries. Containers of ROOT_IMAGE mount it read-only. */
export const SHARED_FOLDER = '/usr';

const ROOT_FOLDERS = ['dev', 'etc', 'opt', 'proc', 'run', 'sys', 'tmp', 'usr', 'var'];
const USR_LINKS = ['bin', 'lib', 'lib64', 'sbin'];

/**
 * Makes the image for services that name none. It contains only folders and links, because Node and the tools
 * are those of the lab VM. A complete image would have to be unpacked in the VM, which takes most of a
 * minute.
 */
export async function makeRootImage(engine: Dockerode, workDir: string): Promise<string> {
  if (await hasImage(engine, ROOT_IMAGE)) return ROOT_IMAGE;
  mkdirSync(workDir, { recursive: true });
  const dir = mkdtempSync(join(workDir, 'root-'));
  try {
    for (const folder of ROOT_FOLDERS) mkdirSync(join(dir, folder));
    for (const name of USR_LINKS) symlinkSync(`usr/${name}`, join(dir, name));
    const tar = spawn('tar', ['-C', dir, '--owner=0', '--group=0', '-cf', '-', '.'], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const [repo, tag] = ROOT_IMAGE.split(':');
    const progress = await engine.importImage(tar.stdout, { repo, tag });
    await new Promise<void>((done, failed) => {
      engine.modem.followProgress(progress, (error) => (error ? failed(error) : done()));
    });
  } finally {
    removeTree(dir);
  }
  return ROOT_IMAGE;
}

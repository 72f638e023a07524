import {
  closeSync,
  fsyncSync,
  lstatSync,
  openSync,
  readdirSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { KitError } from '../../../../conformance/errors.js';
import { removeTree } from '../../../../faults/files/remove-tree.js';
import { type FileLock, waitForLock } from '../../../host/file-lock.js';
import { readOwnFile, whyNotOwnDirectory } from '../../../host/own-files.js';
import { makeUserCacheFolder, userCacheFolder } from '../../../host/user-cache.js';
import type { Accelerator, MachineFiles } from './machine.js';

/*
 * The images of lab VMs, in the user cache directory: a folder for each image, named by its key. A folder gets its name
 * when it is complete and on the disk, so that nothing half-made is found. All checkouts of the user share the images.
 */

/** A lab VM that was built, booted once, and saved with its container engine running. */
export interface LabImage {
  files: MachineFiles;
  accelerator: Accelerator;
  key: string;
  /** Folder of the image. */
  folder: string;
  /** Version of the kernel in the VM. */
  kernel: string;
  builtAt: string;
}

const FOLDER = 'lab';
const LOCK = 'lock';
/** File of an image that says what it is. It is written last. */
const SEAL = 'built.json';
const KEY = /^[0-9a-f]{16}$/;
/** Folders of builds; see `buildLocked`. */
const UNFINISHED = /^plugpull-/;
/** A build takes one to five minutes, and more on a busy machine without KVM. */
const LOCK_TIMEOUT_MS = 1_200_000;
/** Number of images that stay: checkouts with different versions of the kit use different ones. */
const MAX_IMAGES = 3;

const Seal = z.object({
  accelerator: z.enum(['kvm', 'tcg']),
  kernel: z.string(),
  builtAt: z.string(),
  sizes: z.record(z.string(), z.number()),
});

/**
 * Returns the directory of the images.
 * @throws KitError bad-usage when another user could write to it.
 */
export function imagesDirectory(): string {
  return userCacheFolder(FOLDER);
}

/** Returns why the directory of the images is not used, and what to do; undefined when it is used. */
export function whyCacheRefused(): { why: string; remedy: string } | undefined {
  try {
    imagesDirectory();
    return undefined;
  } catch (error) {
    if (!(error instanceof KitError)) throw error;
    const [why = '', remedy = ''] = error.message.split('; ');
    return { why, remedy };
  }
}

/**
 * Locks the directory of the images, so that one process at a time builds or removes one.
 * @param onWait called once, before the wait for another process.
 */
export async function lockImages(onWait: () => void): Promise<FileLock> {
  return waitForLock(join(makeUserCacheFolder(FOLDER), LOCK), LOCK_TIMEOUT_MS, onWait);
}

/** Returns the image in a folder; undefined when there is none, or when a file of it has another size than it had. */
export function readImage(folder: string, key: string): LabImage | undefined {
  if (whyNotOwnDirectory(folder) !== undefined) return undefined;
  try {
    const { accelerator, kernel, builtAt, sizes } = Seal.parse(JSON.parse(readOwnFile(join(folder, SEAL))));
    const files = filesIn(folder);
    for (const [name, file] of Object.entries(files))
      if (statSync(file).size !== sizes[name]) return undefined;
    return { files, accelerator, key, folder, kernel, builtAt };
  } catch {
    return undefined;
  }
}

/** Returns the paths of the files of an image. */
export function filesIn(folder: string): MachineFiles {
  const file = (name: string) => join(folder, name);
  return {
    kernel: file('vmlinuz'),
    initrd: file('initrd.gz'),
    root: file('root.img'),
    data: file('data.img'),
    state: file('state'),
  };
}

/** Completes an image: puts its files on the disk, and then writes down what they are. */
export function sealImage(
  folder: string,
  { files, ...facts }: { files: MachineFiles; accelerator: Accelerator; kernel: string },
): void {
  for (const file of Object.values(files)) syncPath(file);
  const sizes = Object.fromEntries(Object.entries(files).map(([name, file]) => [name, statSync(file).size]));
  const seal = { ...facts, builtAt: new Date().toISOString(), sizes };
  writeFileSync(join(folder, SEAL), `${JSON.stringify(seal)}\n`, { mode: 0o600, flush: true });
  syncPath(folder);
}

/** Syncs a file or directory. */
export function syncPath(path: string): void {
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/**
 * Notes that an image is used now: the images that were not used for the longest time are removed first.
 * @returns false when the image is gone. A process may find an image while another one removes it.
 */
export function noteUse({ folder }: LabImage): boolean {
  const now = new Date();
  try {
    utimesSync(join(folder, SEAL), now, now);
    return true;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return false;
    throw error;
  }
}

/** Removes what interrupted builds have left. The caller holds the lock, so no build is under way. */
export function removeUnfinished(dir: string): void {
  for (const name of readdirSync(dir)) if (UNFINISHED.test(name)) removeTree(join(dir, name));
}

/** Removes all images but the latest ones. A VM that runs keeps its files open and goes on. */
export function removeOldImages(dir: string, current: string): void {
  const others = keysIn(dir).filter((key) => key !== current);
  const usedMs = (key: string) => lstatSync(join(dir, key, SEAL), { throwIfNoEntry: false })?.mtimeMs ?? 0;
  for (const key of others.sort((a, b) => usedMs(b) - usedMs(a)).slice(MAX_IMAGES - 1))
    removeTree(join(dir, key));
}

/**
 * Removes all images of the user, and what interrupted builds have left.
 * @returns the number of removed images.
 */
export async function removeImages(onWait: () => void): Promise<number> {
  const dir = imagesDirectory();
  if (whyNotOwnDirectory(dir) !== undefined) return 0;
  const lock = await lockImages(onWait);
  try {
    removeUnfinished(dir);
    const keys = keysIn(dir);
    for (const key of keys) removeTree(join(dir, key));
    return keys.length;
  } finally {
    lock.release();
  }
}

/** Returns the number of images of the user, and the bytes that they take on the disk. */
export function imagesOnDisk(): { dir: string; count: number; sizeBytes: number } {
  const dir = imagesDirectory();
  if (whyNotOwnDirectory(dir) !== undefined) return { dir, count: 0, sizeBytes: 0 };
  const keys = keysIn(dir);
  const blocks = keys
    .flatMap((key) => readdirSync(join(dir, key)).map((name) => join(dir, key, name)))
    .reduce((sum, file) => sum + (lstatSync(file, { throwIfNoEntry: false })?.blocks ?? 0), 0);
  return { dir, count: keys.length, sizeBytes: blocks * 512 };
}

function keysIn(dir: string): string[] {
  return readdirSync(dir).filter((name) => KEY.test(name));
}

import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { buffer } from 'node:stream/consumers';
import type Dockerode from 'dockerode';
import { KitError } from '../../../conformance/errors.js';
import { statusOf, tolerateGone } from './engine.js';

const DEFAULT_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const TAR_BLOCK_BYTES = 512;
const TAR_SIZE_OFFSET = 124;
const TAR_SIZE_BYTES = 12;

/** A user of an image, by number. */
export interface ImageUser {
  uid: number;
  gid: number;
}

/** The files of an image, seen through a container that is never started. */
export class ImageContents {
  readonly #container: Dockerode.Container;
  readonly #path: readonly string[];

  private constructor(container: Dockerode.Container, path: readonly string[]) {
    this.#container = container;
    this.#path = path;
  }

  /** Gives `work` the files of an image. */
  static async open<T>(
    engine: Dockerode,
    image: string,
    work: (contents: ImageContents) => Promise<T>,
  ): Promise<T> {
    const { Config } = await engine.getImage(image).inspect();
    const path = (Config.Env ?? []).find((line) => line.startsWith('PATH='))?.slice('PATH='.length);
    const options = { Image: image, Entrypoint: [], Cmd: ['plugpull'], NetworkDisabled: true };
    const container = await engine.createContainer(options);
    try {
      return await work(new ImageContents(container, (path || DEFAULT_PATH).split(':')));
    } finally {
      await tolerateGone(container.remove({ force: true }));
    }
  }

  /** Reports whether the image has a file or directory. */
  async has(path: string): Promise<boolean> {
    try {
      // Consume the answer: its connection would otherwise keep the kit alive.
      ((await this.#container.infoArchive({ path })) as NodeJS.ReadableStream).resume();
      return true;
    } catch (error) {
      if (statusOf(error) === 404) return false;
      throw error;
    }
  }

  /** Reports whether the image has a program, given as an absolute path or as a name on the image's PATH. */
  async hasProgram(program: string): Promise<boolean> {
    if (program.includes('/')) return this.has(program);
    for (const dir of this.#path) if (await this.has(`${dir}/${program}`)) return true;
    return false;
  }

  /** Returns the content of a regular file; undefined when the image has no such file. */
  async read(path: string): Promise<Buffer | undefined> {
    let archive: Buffer;
    try {
      archive = await buffer(await this.#container.getArchive({ path }));
    } catch (error) {
      if (statusOf(error) === 404) return undefined;
      throw error;
    }
    // The archive has this one file: a block with its head, then its bytes.
    const size = archive.toString('latin1', TAR_SIZE_OFFSET, TAR_SIZE_OFFSET + TAR_SIZE_BYTES);
    return archive.subarray(
      TAR_BLOCK_BYTES,
      TAR_BLOCK_BYTES + Number.parseInt(size.replaceAll(/[\0 ]/g, ''), 8),
    );
  }

  /** Finds a user by name or number; returns undefined when the image does not know the name. */
  async user(name: string): Promise<ImageUser | undefined> {
    const passwd = (await this.read('/etc/passwd'))?.toString('utf8') ?? '';
    for (const line of passwd.split('\n')) {
      const [user, , uid, gid] = line.split(':');
      if (user === name || uid === name) return { uid: Number(uid), gid: Number(gid) };
    }
    // As the container engine does: a number need not be known, and its group is then that of root.
    return /^\d+$/.test(name) ? { uid: Number(name), gid: 0 } : undefined;
  }
}

/**
 * Finds a user of an image.
 * @param key key path of the name in the target file.
 * @throws KitError bad-target when the image has no such user, or when the kit may not give it the data.
 */
export async function findImageUser(
  contents: ImageContents,
  key: string,
  image: string,
  name: string,
): Promise<ImageUser> {
  const user = await contents.user(name);
  const own = process.getuid?.() ?? 0;
  if (user !== undefined && own !== 0 && own !== user.uid) {
    const message = `the kit must run as root to run a service as ${name}, it runs as user ${own}`;
    throw new KitError('bad-target', `${key}: ${message}`);
  }
  if (user !== undefined) return user;
  throw new KitError(
    'bad-target',
    `${key}: image ${image} has no user ${name}: expected one of its /etc/passwd`,
  );
}

/** Copies a program out of an image to a path of this machine. Returns false when the image does not have it. */
export async function copyProgram(contents: ImageContents, path: string, to: string): Promise<boolean> {
  const bytes = await contents.read(path);
  if (bytes === undefined) return false;
  mkdirSync(dirname(to), { recursive: true });
  const unfinished = `${to}.${process.pid}`;
  writeFileSync(unfinished, bytes, { mode: 0o755 });
  renameSync(unfinished, to);
  return true;
}

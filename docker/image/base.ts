import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type Dockerode from 'dockerode';
import { buildImage, hasImage } from './build-image.js';

const run = promisify(execFile);

/** Packages that faults use inside a container (kill at a system call, tear, clock). */
export const FAULT_PACKAGES = ['strace', 'libfaketime'];
/** Packages that set the rules of a run's network. The container that holds this network uses the same image. */
const NETWORK_PACKAGES = ['iptables'];
/**
 * Packages with the program that holds a container back until its boot id is in place. The kit copies it out of
 * the image, for the containers of other images.
 */
const LATCH_PACKAGES = ['busybox-static'];
/**
 * Packages of the root filesystem: those that Node needs, and those that complete a Debian root (/tmp,
 * /etc/os-release).
 */
const ROOT_PACKAGES = ['base-files', 'libstdc++6', ...FAULT_PACKAGES, ...NETWORK_PACKAGES, ...LATCH_PACKAGES];
const EXCLUDED_PATHS = ['/usr/share/*', '/usr/lib/*/gconv/*'];
const PULL_TIMEOUT_MS = 120_000;
const ROOT_TIMEOUT_MS = 900_000;

/**
 * Returns a base image with this version of Node. It is made from a slim Node image if a registry has one,
 * otherwise from Debian packages.
 */
export async function baseImage(
  engine: Dockerode,
  workDir: string,
  say: (line: string) => void,
): Promise<string> {
  const tag = `plugpull/base:${baseKey()}`;
  if (await hasImage(engine, tag)) return tag;
  const pullError = await pullBase(engine, tag, workDir, say).then(
    () => undefined,
    (error: unknown) => String(error instanceof Error ? error.message : error).split('\n')[0],
  );
  if (pullError === undefined) return tag;
  say(`no base from a registry (${pullError}): making one from Debian packages`);
  await buildBaseFromPackages(engine, tag, workDir);
  return tag;
}

/**
 * Returns the digest of everything that determines the base image. The addons in the image were compiled on
 * this machine, so the image needs the same Node, and a C library that is not older.
 */
export function baseKey(): string {
  const { size, mtimeMs } = statSync(process.execPath);
  const parts = [process.version, process.arch, size, mtimeMs, ROOT_PACKAGES, EXCLUDED_PATHS, codename()];
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 16);
}

/**
 * Makes a base image from a slim Node image of a registry.
 * @throws Error when no registry can be reached that has one.
 */
export async function pullBase(
  engine: Dockerode,
  tag: string,
  workDir: string,
  say: (line: string) => void,
  packages: readonly string[] = [...FAULT_PACKAGES, ...NETWORK_PACKAGES, ...LATCH_PACKAGES],
): Promise<void> {
  const name = `node:${process.versions.node}-${codename()}-slim`;
  const abort = AbortSignal.timeout(PULL_TIMEOUT_MS);
  const pulled = await engine.pull(name, { abortSignal: abort });
  say(`pulling ${name}`);
  await new Promise<void>((resolve, reject) => {
    engine.modem.followProgress(pulled, (error) => (error ? reject(error) : resolve()));
  });
  const dir = join(workDir, 'registry-base');
  const lines = [
    `FROM ${name}`,
    `RUN apt-get update && apt-get install -y --no-install-recommends ${packages.join(' ')} && rm -rf /var/lib/apt/lists/*`,
  ];
  await withEmptyFolder(dir, async () => {
    writeFileSync(join(dir, 'Dockerfile'), `${lines.join('\n')}\n`);
    await buildImage(engine, dir, { tag });
  });
}

async function buildBaseFromPackages(engine: Dockerode, tag: string, workDir: string): Promise<void> {
  const dir = join(workDir, 'debian-base');
  await withEmptyFolder(dir, async () => {
    await makeRootfs(join(dir, 'root.tar'), ROOT_PACKAGES, EXCLUDED_PATHS);
    await copyNode(join(dir, 'node'));
    writeFileSync(
      join(dir, 'Dockerfile'),
      'FROM scratch\nADD root.tar /\nCOPY node /usr/local/bin/node\nCMD ["node"]\n',
    );
    await buildImage(engine, dir, { tag });
  });
}

/** Copies Node without its symbols, which are half of its size and are not needed in an image. */
export async function copyNode(to: string): Promise<void> {
  await run('strip', ['-o', to, process.execPath]).catch(() => copyFileSync(process.execPath, to));
}

/**
 * Makes a tar file with a Debian root filesystem of this machine's release: the packages and their
 * dependencies.
 * @param variant `extract`: the scripts of the packages do not run, so there are no users and no caches, and nothing is
 *   started; `minbase`: a complete root, in which packages can be installed.
 * @throws Error when mmdebstrap is not installed, or with the last lines of its output when it fails.
 */
export async function makeRootfs(
  file: string,
  packages: readonly string[],
  excluded: readonly string[],
  variant: 'extract' | 'minbase' = 'extract',
): Promise<void> {
  const args = [
    `--variant=${variant}`,
    `--include=${packages.join(',')}`,
    ...excluded.map((path) => `--dpkgopt=path-exclude=${path}`),
    codename(),
    file,
  ];
  try {
    await run('mmdebstrap', args, { timeout: ROOT_TIMEOUT_MS });
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') {
      throw new Error(
        'no registry can be reached and mmdebstrap is not installed: install the package mmdebstrap',
        {
          cause: error,
        },
      );
    }
    const text = error instanceof Error && 'stderr' in error ? String(error.stderr) : String(error);
    throw new Error(`mmdebstrap failed: ${text.trim().split('\n').slice(-3).join(' | ')}`, { cause: error });
  }
}

/** Runs `work` with an empty folder at `dir`, and removes the folder afterwards. */
export async function withEmptyFolder(dir: string, work: () => Promise<void>): Promise<void> {
  rmSync(dir, { recursive: true, force: true });
  mkdirSync(dir, { recursive: true });
  try {
    await work();
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

/** Returns the code name of this machine's Debian release. The addons are linked against its C library. */
export function codename(): string {
  const release = readFileSync('/etc/os-release', 'utf8');
  return /^VERSION_CODENAME=(\S+)$/m.exec(release)?.[1] ?? 'bookworm';
}

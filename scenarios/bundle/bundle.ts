import { createHash } from 'node:crypto';
import { createReadStream, mkdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import * as tar from 'tar';
import { parseBoundedJson } from '../../conformance/bounded-json.js';
import { KitError, messageOf } from '../../conformance/errors.js';
import { limit } from '../../conformance/limits.js';
import { readRegularFile } from '../../conformance/read-file.js';
import { regularFiles } from '../../faults/files/walk.js';
import { attempt } from '../host/attempt.js';
import { noteMadeHere, whyNotMadeHere } from '../host/made-here.js';
import { kitVersion } from '../host/version.js';
import { packImage, unpackImage } from './extents.js';
import { BUNDLE_VERSION, Manifest } from './manifest.js';
import { checkSeal, seal } from './seal.js';
import { unpackBundle } from './unpack.js';

const MANIFEST_FILE = 'bundle.json';
const EXTENTS_SUFFIX = '.extents';
/** Files that are not evidence: the scratch space of faults, and bundles. */
const EXCLUDED_FILES = /^(?:round-\d+\/scratch\/|bundle[\w.-]*$|[^/]*\.tar\.gz$)/;

/** The parts of the manifest that the caller provides. */
export type ManifestParts = Omit<Manifest, 'format' | 'version' | 'kitVersion' | 'omittedFiles'>;

/** Origin of the commands in a bundle; see `writeBundle`. */
export type Origin = 'own-run' | 'foreign';

/** Returns the origin of a bundle that is made from another one. */
export function originOf({ sha256 }: Bundle): Origin {
  return whyNotMadeHere(sha256) === undefined ? 'own-run' : 'foreign';
}

/**
 * Packs an evidence directory into one file.
 * @param file path of the bundle. It is replaced in one step, so that it is never half written.
 * @param origin `own-run`: the commands of its target are those of a target file that the user named, so the bundle is
 *   noted as made here. `foreign`: they come from a bundle that was not made here, and this one needs --trust too.
 */
export async function writeBundle(
  file: string,
  evidence: string,
  parts: ManifestParts,
  origin: Origin = 'own-run',
): Promise<void> {
  // Files that the limits of `unpackBundle` would refuse are left out, and the manifest lists them.
  const temporaryFiles: string[] = [];
  const names: string[] = [];
  const omittedFiles: string[] = [];
  try {
    for (const name of regularFiles(evidence)) {
      if (EXCLUDED_FILES.test(name)) continue;
      const path = join(evidence, name);
      if (name.endsWith('.img')) {
        temporaryFiles.push(`${path}${EXTENTS_SUFFIX}`);
        packImage(path, `${path}${EXTENTS_SUFFIX}`);
        names.push(`${name}${EXTENTS_SUFFIX}`);
      } else if (statSync(path).size > limit('bundle-entry-bytes')) omittedFiles.push(name);
      else names.push(name);
    }
    const manifest: Manifest = {
      format: 'plugpull-bundle',
      version: BUNDLE_VERSION,
      kitVersion: kitVersion(),
      omittedFiles,
      ...parts,
    };
    temporaryFiles.push(join(evidence, MANIFEST_FILE));
    writeFileSync(join(evidence, MANIFEST_FILE), `${JSON.stringify(manifest, undefined, 2)}\n`);
    const unfinished = `${file}.part`;
    temporaryFiles.push(unfinished);
    const tarOptions = { cwd: evidence, file: unfinished, gzip: { level: 6 }, portable: true, strict: true };
    await tar.create(tarOptions, [MANIFEST_FILE, ...names]);
    seal(unfinished);
    const sha256 = await digestOf(unfinished);
    renameSync(unfinished, file);
    if (origin === 'own-run')
      await attempt(`${file} is not noted as made here, so its replay needs --trust`, () =>
        noteMadeHere(sha256, file),
      );
  } finally {
    for (const path of temporaryFiles) rmSync(path, { force: true });
  }
}

/** An unpacked bundle: its manifest, and the directory `dir` with the evidence. */
export interface Bundle {
  file: string;
  manifest: Manifest;
  dir: string;
  /** Digest of the whole file that was unpacked. */
  sha256: string;
}

/**
 * Checks a bundle and unpacks it to `dir`, which is made.
 * @throws KitError bad-bundle (exit code 2) when the file is not a bundle, was changed, or has another
 * version; kit-failed when the disk is full.
 */
export async function openBundle(file: string, dir: string): Promise<Bundle> {
  checkSeal(file);
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const sha256 = await unpackBundle(file, dir);
  const manifest = readManifest(file, join(dir, MANIFEST_FILE));
  for (const name of regularFiles(dir).filter((path) => path.endsWith(EXTENTS_SUFFIX))) {
    const path = join(dir, name);
    unpackImage(path, path.slice(0, -EXTENTS_SUFFIX.length));
    rmSync(path);
  }
  return { file, manifest, dir, sha256 };
}

async function digestOf(file: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(file), hash);
  return hash.digest('hex');
}

function readManifest(file: string, path: string): Manifest {
  let json: unknown;
  try {
    json = parseBoundedJson(readRegularFile(path, limit('json-bytes')));
  } catch (error) {
    throw new KitError('bad-bundle', `${file}: expected ${MANIFEST_FILE} in it: ${messageOf(error)}`, {
      cause: error,
    });
  }
  const { version } = (json ?? {}) as { version?: unknown };
  if (typeof version === 'number' && version !== BUNDLE_VERSION) {
    throw new KitError(
      'bad-bundle',
      `${file}: has version ${version} of the format, expected ${BUNDLE_VERSION}: use the kit that made it`,
    );
  }
  const parsed = Manifest.safeParse(json);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`);
  throw new KitError('bad-bundle', `${file}: ${MANIFEST_FILE}: ${problems.join('; ')}`);
}

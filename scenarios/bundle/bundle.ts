import { createHash } from 'node:crypto';
import { createReadStream, mkdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { parseBoundedJson } from '../../conformance/bounded-json.js';
import { KitError, messageOf } from '../../conformance/errors.js';
import { limit } from '../../conformance/limits.js';
import { readRegularFile } from '../../conformance/read-file.js';
import { regularFiles } from '../../faults/files/walk.js';
import { attempt } from '../host/attempt.js';
import { noteMadeHere, whyNotMadeHere } from '../host/made-here.js';
import { kitVersion } from '../host/version.js';
import { EXTENTS_SUFFIX, unpackImage } from './extents.js';
import { BUNDLE_VERSION, Manifest, type Origin } from './manifest.js';
import { packBundle, TEMPORARY_PREFIX } from './pack.js';
import { checkSeal } from './seal.js';
import { unpackBundle } from './unpack.js';

const MANIFEST_FILE = 'bundle.json';
/** Files that are not evidence: the scratch space of faults, and bundles. */
const EXCLUDED_FILES = /^(?:round-\d+\/scratch\/|bundle[\w.-]*$|[^/]*\.tar\.gz$)/;

/** The parts of the manifest that the caller provides. */
export type ManifestParts = Omit<Manifest, 'format' | 'version' | 'kitVersion' | 'omittedFiles'>;

/** Returns the origin of a bundle that is made from another one. */
export function originOf({ sha256 }: Pick<Bundle, 'sha256'>): Origin {
  return whyNotMadeHere(sha256) === undefined ? 'own-run' : 'foreign';
}

/**
 * Packs an evidence directory into one file. Files beyond the limits of a bundle are left out, and the manifest lists
 * them.
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
  const unfinished = `${file}.part`;
  // The temporary files are those of a kit that was killed while it packed.
  const names = regularFiles(evidence).filter(
    (name) => !EXCLUDED_FILES.test(name) && !name.startsWith(TEMPORARY_PREFIX),
  );
  try {
    const manifestText = (omittedFiles: readonly string[]): string => {
      const manifest: Manifest = {
        format: 'plugpull-bundle',
        version: BUNDLE_VERSION,
        kitVersion: kitVersion(),
        omittedFiles: [...omittedFiles],
        ...parts,
      };
      return `${JSON.stringify(manifest, undefined, 2)}\n`;
    };
    await packBundle({
      ...{ file: unfinished, evidence, names },
      ...{ manifestName: MANIFEST_FILE, manifestText },
    });
    const sha256 = await digestOf(unfinished);
    renameSync(unfinished, file);
    if (origin === 'own-run')
      await attempt(`${file} is not noted as made here, so its replay needs --trust`, () =>
        noteMadeHere(sha256, file),
      );
  } finally {
    rmSync(unfinished, { force: true });
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
  const expected = await digestOf(file);
  const origin = originOf({ sha256: expected });
  const sha256 = await unpackBundle(file, dir, origin);
  if (sha256 !== expected)
    throw new KitError('bad-bundle', `${file}: it was changed while it was read, expected that it stays`);
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

import { mkdtempSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as tar from 'tar';
import { parseBoundedJson } from '../../conformance/bounded-json.js';
import { KitError, messageOf } from '../../conformance/errors.js';
import { beyond, limit } from '../../conformance/limits.js';
import { removeTree } from '../../faults/files/remove-tree.js';
import { BundleBudget, RATIO_FREE_BYTES, ratioBytes } from './budget.js';
import { EXTENTS_SUFFIX, extentsSize, packImage } from './extents.js';
import { seal } from './seal.js';

/** Size from which a file that is mostly zeros is packed without them. A smaller one is packed as it is. */
const MIN_SPARSE_BYTES = 16 << 10;
/** Upper bound of the names of omitted files in a manifest, which must stay a small document. */
const MAX_NAMED_FILES = 1000;

/** Beginning of the name of the directory with temporary files, which is in the evidence. */
export const TEMPORARY_PREFIX = '.packing-';

/** One file of the evidence, as it goes into the archive. */
interface PackedFile {
  name: string;
  /** Its name in the archive. */
  packedName: string;
  /** Its size in the archive. */
  sizeBytes: number;
  isSparse: boolean;
}

/** Makes the archive hold each name of a file as a file. A reader refuses links. */
class NoLinks extends Map<`${number}:${number}`, string> {
  override get(): undefined {
    return undefined;
  }
}

/** Files to pack, and where. */
export interface Packing {
  /** The archive to write. */
  file: string;
  /** Directory of the evidence. */
  evidence: string;
  /** Names of the files, relative to the evidence. */
  names: readonly string[];
  manifestName: string;
  /** Returns the text of the manifest. */
  manifestText(omittedFiles: readonly string[]): string;
}

/**
 * Packs evidence as a sealed archive that `unpackBundle` accepts everywhere. Files that do not fit are omitted, and the
 * manifest names them: the largest ones of the deepest folders first.
 */
export async function packBundle(packing: Packing): Promise<void> {
  const decided: PackedFile[] = [];
  for (const name of packing.names) decided.push(await packedFile(packing.evidence, name));
  const files = decided.sort(
    (one, other) => depthOf(one) - depthOf(other) || one.sizeBytes - other.sizeBytes,
  );
  const bytes = await packWithin(packing, files, Number.POSITIVE_INFINITY);
  if (bytes <= ratioBytes(statSync(packing.file).size)) return;
  // Nobody knows the packed size before. A second archive with this bound is accepted whatever its size is.
  await packWithin(packing, files, RATIO_FREE_BYTES);
}

/** @returns the unpacked size of the archive, in bytes. */
async function packWithin(
  { file, evidence, manifestName, manifestText }: Packing,
  files: readonly PackedFile[],
  maxBytes: number,
): Promise<number> {
  const budget = new BundleBudget(maxBytes);
  // The names of omitted files make the manifest longer. Count a manifest that names as many as it may.
  const longest = [...files].sort((one, other) => other.name.length - one.name.length);
  requireManifestFits(file, manifestName, manifestText(omittedNames(longest)), budget);
  const packed: PackedFile[] = [];
  const omitted: PackedFile[] = [];
  for (const one of files) {
    const fits = budget.take(one.packedName, one.sizeBytes) === undefined;
    (fits ? packed : omitted).push(one);
  }
  const temporaryDir = mkdtempSync(join(evidence, TEMPORARY_PREFIX));
  try {
    // Name in the archive of each file, by the path of its content, in the order of the archive.
    const sources = new Map<string, string>();
    const newFile = (packedName: string) => {
      const path = join(temporaryDir, `${sources.size}`);
      sources.set(path, packedName);
      return path;
    };
    writeFileSync(newFile(manifestName), manifestText(omittedNames(omitted)));
    for (const { name, packedName, isSparse } of packed) {
      if (isSparse) await packImage(join(evidence, name), newFile(packedName));
      else sources.set(join(evidence, name), packedName);
    }
    await createArchive(file, sources);
  } finally {
    removeTree(temporaryDir);
  }
  seal(file);
  return budget.bytes;
}

/** @param sources name in the archive of each file, by its absolute path. */
async function createArchive(file: string, sources: ReadonlyMap<string, string>): Promise<void> {
  const onWriteEntry = (entry: tar.WriteEntry) => {
    entry.path = sources.get(entry.absolute) ?? entry.path;
  };
  const form = { gzip: { level: 6 }, portable: true, strict: true, preservePaths: true } as const;
  await tar.create({ ...form, file, linkCache: new NoLinks(), onWriteEntry }, [...sources.keys()]);
}

/** @throws KitError bad-usage when a reader with the same limits would refuse the manifest. */
function requireManifestFits(file: string, name: string, text: string, budget: BundleBudget): void {
  const bytes = Buffer.from(text);
  let why = budget.take(name, bytes.length);
  if (bytes.length > limit('json-bytes')) why ??= `${name} has ${beyond('json-bytes', 'bytes')}`;
  try {
    parseBoundedJson(bytes);
  } catch (error) {
    why ??= `${name}: ${messageOf(error)}`;
  }
  if (why !== undefined) throw new KitError('bad-usage', `${file}: ${why}`);
}

/** Decides how a file is packed. One that cannot be read, or has too many bytes for a reader, gets an infinite size. */
async function packedFile(evidence: string, name: string): Promise<PackedFile> {
  const path = join(evidence, name);
  const asItIs = { name, packedName: name, sizeBytes: Number.POSITIVE_INFINITY, isSparse: false };
  try {
    const { size: sizeBytes } = statSync(path);
    // A reader restores every file with this suffix, so a file of the target that has it must be packed too.
    const isSuffixTaken = name.endsWith(EXTENTS_SUFFIX);
    const mustBeSparse = name.endsWith('.img') || isSuffixTaken;
    if (!mustBeSparse && sizeBytes < MIN_SPARSE_BYTES) return { ...asItIs, sizeBytes };
    const sparseBytes = await extentsSize(path);
    const maxBytes = limit('bundle-entry-bytes');
    const isWorthIt = sparseBytes <= sizeBytes / 2 || (sizeBytes > maxBytes && sparseBytes <= maxBytes);
    const isSparse = mustBeSparse || (isWorthIt && sizeBytes <= limit('image-bytes'));
    if (!isSparse) return { ...asItIs, sizeBytes };
    const isImageTooLarge = sizeBytes > limit('image-bytes');
    return {
      name,
      packedName: `${name}${EXTENTS_SUFFIX}`,
      sizeBytes: isImageTooLarge ? Number.POSITIVE_INFINITY : sparseBytes,
      isSparse,
    };
  } catch {
    return asItIs;
  }
}

/** Returns the number of folders above a file. What a replay needs is at the top; the data of the target is below. */
function depthOf({ name }: PackedFile): number {
  return name.split('/').length - 1;
}

function omittedNames(files: readonly PackedFile[]): string[] {
  const names = files.slice(0, MAX_NAMED_FILES).map(({ name }) => name);
  const more = files.length - names.length;
  return more === 0 ? names.sort() : [...names.sort(), `and ${more} more files`];
}

import { existsSync, statSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { KitError } from '../../../conformance/errors.js';
import { openBundle } from '../../bundle/bundle.js';
import { sourceFromCertificate } from './from-certificate.js';
import { sourceFromDirectory } from './from-directory.js';
import { sourceFromResult } from './from-result.js';
import type { ReportSource } from './source.js';

const CERTIFICATE_FILE = 'certificate.json';

/** What a path leads to, and the directory beside which a report of it belongs. */
export interface Collected {
  source: ReportSource;
  /** Directory of the evidence; undefined when the path is a single file. */
  directory: string | undefined;
}

/**
 * Collects what a report is made from: a directory of evidence, a bundle, a certificate or its directory, or the file
 * of a result. It runs nothing of what it reads.
 * @param makeScratch makes a directory into which a bundle is unpacked; the caller removes it.
 * @throws KitError bad-usage, bad-history or bad-bundle (exit code 2) when the path is none of these, or is damaged.
 */
export async function collect(path: string, makeScratch: () => string): Promise<Collected> {
  const full = resolve(path);
  const stats = statSync(full, { throwIfNoEntry: false });
  if (stats === undefined)
    throw new KitError(
      'bad-usage',
      `${path}: expected evidence, a bundle, a certificate or a result; there is no such file or directory`,
    );
  if (stats.isDirectory()) {
    const isCertificate = existsSync(join(full, CERTIFICATE_FILE)) && existsSync(join(full, 'evidence'));
    const source = isCertificate ? sourceFromCertificate(full, path) : sourceFromDirectory(full, path);
    return { source, directory: full };
  }
  if (basename(full) === CERTIFICATE_FILE && existsSync(join(dirname(full), 'evidence')))
    return { source: sourceFromCertificate(dirname(full), path), directory: dirname(full) };
  if (/\.(tar\.gz|tgz)$/.test(full))
    return { source: await sourceFromBundle(full, path, makeScratch()), directory: undefined };
  return { source: sourceFromResult(full), directory: undefined };
}

async function sourceFromBundle(file: string, path: string, scratch: string): Promise<ReportSource> {
  const { manifest, dir } = await openBundle(file, join(scratch, 'bundle'));
  return sourceFromDirectory(dir, path, {
    target: manifest.target.definition,
    seed: manifest.seed,
    kitVersion: manifest.kitVersion,
    command: manifest.case.kind === 'gate' ? 'gate' : 'explore',
  });
}

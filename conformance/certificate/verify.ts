import { dirname, resolve } from 'node:path';
import { KitError, messageOf } from '../errors.js';
import { readRegularFile } from '../read-file.js';
import {
  type CertificateBody,
  certificateOf,
  certificateText,
  EXTENSION,
  type Statement,
} from './certificate.js';
import { evidenceFiles, readEvidence } from './evidence.js';

/** What became of a certificate under verification. */
export interface Verification {
  ok: boolean;
  /** One line each; empty when all is as it was certified. */
  problems: string[];
  /** What the evidence says, evaluated again; undefined when it cannot be read. */
  certified: CertificateBody | undefined;
}

const MAX_REPORTED_PROBLEMS = 20;
/** Far above any certificate. */
const MAX_CERTIFICATE_BYTES = 64 * 2 ** 20;

/**
 * Holds a certificate against its evidence: the histories are evaluated again, everything is digested again, and the
 * certificate must be, byte for byte, the one that comes out.
 * @param kitVersion of the kit that verifies: another one's words may differ.
 * @throws KitError bad-usage (exit code 2) when the file cannot be read, is no certificate, or has no evidence beside it.
 */
export function verifyCertificate(file: string, kitVersion: string): Verification {
  const text = readText(file);
  const dir = dirname(resolve(file));
  const currentDigests = new Map(evidenceFiles(dir).map(({ name, sha256 }) => [name, sha256]));
  const stated = parseStatedDigests(text);
  if (currentDigests.size === 0) {
    const what = stated === undefined ? 'a certificate' : 'the folder evidence/ beside the certificate';
    throw new KitError('bad-usage', `${file}: expected ${what}`);
  }
  const problems = stated === undefined ? [] : compareDigests(stated, currentDigests);
  const rebuilt = rebuildCertificate(dir, problems);
  if (rebuilt !== undefined && problems.length === 0) {
    const difference = firstDifference(text, certificateText(rebuilt));
    const { kitVersion: madeBy } = rebuilt.predicate[EXTENSION];
    if (difference !== undefined && madeBy !== kitVersion && stated?.kitVersion === madeBy)
      throw new KitError(
        'bad-usage',
        `${file}: it was made by plugpull ${madeBy}, this is ${kitVersion}: expected the same version`,
      );
    if (difference !== undefined) problems.push(`${file}:${difference} is not what the evidence gives`);
  }
  const certified = rebuilt?.predicate[EXTENSION];
  return { ok: problems.length === 0, problems: problems.slice(0, MAX_REPORTED_PROBLEMS), certified };
}

/** The certificate that the evidence gives; undefined, and a problem more, when it gives none. */
function rebuildCertificate(dir: string, problems: string[]): Statement | undefined {
  try {
    return certificateOf(readEvidence(dir));
  } catch (error) {
    if (problems.length === 0 && !(error instanceof KitError)) throw error;
    // What was changed is known already; what follows from the change is no news.
    if (problems.length === 0) problems.push(messageOf(error));
    return undefined;
  }
}

function readText(file: string): string {
  try {
    // Not as UTF-8, in which different bytes may become the same replacement.
    return readRegularFile(file, MAX_CERTIFICATE_BYTES).toString('latin1');
  } catch (error) {
    throw new KitError('bad-usage', `${file}: expected a certificate: ${messageOf(error)}`, { cause: error });
  }
}

interface StatedDigests {
  kitVersion: string | undefined;
  digests: Map<string, string>;
}

/** Digests of evidence files that a certificate states; undefined when it cannot be read as one. */
function parseStatedDigests(text: string): StatedDigests | undefined {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(text, 'latin1').toString('utf8'));
  } catch {
    return undefined;
  }
  const statement = asObject(value);
  const predicate = asObject(statement?.predicate);
  if (statement === undefined || predicate === undefined || !Array.isArray(statement.subject))
    return undefined;
  const digests = new Map<string, string>();
  const configuration = Array.isArray(predicate.configuration) ? predicate.configuration : [];
  for (const entry of [...statement.subject, ...configuration]) {
    const { name, digest } = asObject(entry) ?? {};
    const sha256 = asObject(digest)?.sha256;
    if (typeof name === 'string' && typeof sha256 === 'string' && name.startsWith('evidence/'))
      digests.set(name, sha256);
  }
  const kitVersion = asObject(predicate[EXTENSION])?.kitVersion;
  return { digests, kitVersion: typeof kitVersion === 'string' ? kitVersion : undefined };
}

function compareDigests({ digests }: StatedDigests, currentDigests: ReadonlyMap<string, string>): string[] {
  const problems: string[] = [];
  for (const [name, digest] of digests) {
    const found = currentDigests.get(name);
    if (found === undefined) problems.push(`${name}: it is missing`);
    else if (found !== digest) problems.push(`${name}: it was changed: sha256 ${found}, certified ${digest}`);
  }
  for (const name of currentDigests.keys())
    if (!digests.has(name)) problems.push(`${name}: it is not certified`);
  return problems;
}

/** Line and column of the first byte that differs; undefined when none does. */
function firstDifference(text: string, expected: string): string | undefined {
  const wanted = Buffer.from(expected, 'utf8').toString('latin1');
  if (text === wanted) return undefined;
  let at = 0;
  while (at < text.length && text[at] === wanted[at]) at += 1;
  const before = text.slice(0, at).split('\n');
  return `${before.length}:${(before.at(-1)?.length ?? 0) + 1}`;
}

function asObject(value: unknown): Record<string, unknown> | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : undefined;
}

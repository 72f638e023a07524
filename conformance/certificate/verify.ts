import { dirname, resolve } from 'node:path';
import { parseBoundedJson } from '../bounded-json.js';
import { KitError, messageOf } from '../errors.js';
import { isBeyondLimit, limit } from '../limits.js';
import { readRegularFile } from '../read-file.js';
import {
  type CertificateBody,
  certificateOf,
  certificateText,
  EXTENSION,
  type Statement,
} from './certificate.js';
import { type Evidence, EvidenceFormatError, evidenceFiles, readEvidence } from './evidence.js';
import { PlausibilityCheck, programDifferences } from './plausibility.js';

/** Result of the verification of a certificate. */
export interface Verification {
  /**
   * True when the evidence leads to the same certificate and is plausible. Evidence that was written by hand can be
   * both: only a signature says who vouches for it.
   */
  ok: boolean;
  /** Problems, one line each; empty if nothing was changed and nothing is implausible. */
  problems: string[];
  /** What differs on this machine and is no problem, such as another build of a program, one line each. */
  notes: string[];
  /** Content of the certificate file: a signature must be checked over these very bytes. */
  bytes: Buffer;
  /** Body of the certificate that follows from the evidence; undefined if the evidence cannot be read. */
  certified: CertificateBody | undefined;
}

const MAX_REPORTED_PROBLEMS = 20;

/**
 * Verifies a certificate against its evidence. It computes all digests and evaluates the histories again; the
 * result must equal the certificate byte for byte. Then it checks whether the evidence is plausible.
 * @param kitVersion version of the verifying kit.
 * @param nowMs current time, in ms since 1970.
 * @throws KitError bad-usage (exit code 2) when the file cannot be read, is not a certificate, or has no
 * evidence beside it. Also when the result differs and another version of the kit made the certificate: a
 * version may word its reasons differently, so the difference proves nothing.
 * @throws EvidenceFormatError (exit code 2) when the evidence has another format.
 */
export function verifyCertificate(file: string, kitVersion: string, nowMs = Date.now()): Verification {
  const bytes = readBytes(file);
  // Do not decode as UTF-8: different invalid bytes would become the same replacement character.
  const text = bytes.toString('latin1');
  const dir = dirname(resolve(file));
  const currentDigests = new Map(evidenceFiles(dir).map(({ name, sha256 }) => [name, sha256]));
  const stated = parseStatedDigests(text, file);
  if (currentDigests.size === 0) {
    const what = stated === undefined ? 'a certificate' : 'the folder evidence/ beside the certificate';
    throw new KitError('bad-usage', `${file}: expected ${what}`);
  }
  const problems = stated === undefined ? [] : compareDigests(stated, currentDigests);
  const plausibility = new PlausibilityCheck();
  const { evidence, rebuilt } = rebuildCertificate(dir, problems, plausibility) ?? {};
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
  // In changed evidence, the change is the problem.
  if (evidence !== undefined && problems.length === 0)
    problems.push(...plausibility.problems(evidence.facts, nowMs));
  return {
    ok: problems.length === 0,
    problems: problems.slice(0, MAX_REPORTED_PROBLEMS),
    notes: evidence === undefined ? [] : programDifferences(evidence.facts),
    bytes,
    certified: rebuilt?.predicate[EXTENSION],
  };
}

/**
 * Reads the evidence and makes its certificate. Returns undefined and adds a problem if that fails.
 * @param plausibility gets the events of the histories.
 */
function rebuildCertificate(
  dir: string,
  problems: string[],
  plausibility: PlausibilityCheck,
): { evidence: Evidence; rebuilt: Statement } | undefined {
  try {
    const evidence = readEvidence(dir, plausibility.observe);
    return { evidence, rebuilt: certificateOf(evidence) };
  } catch (error) {
    const notRead = error instanceof EvidenceFormatError || isBeyondLimit(error);
    if (problems.length === 0 && (notRead || !(error instanceof KitError))) throw error;
    // If a change is already reported, this error is a consequence of it and would add nothing.
    if (problems.length === 0) problems.push(messageOf(error));
    return undefined;
  }
}

function readBytes(file: string): Buffer {
  try {
    return readRegularFile(file, limit('json-bytes'));
  } catch (error) {
    throw new KitError('bad-usage', `${file}: expected a certificate: ${messageOf(error)}`, { cause: error });
  }
}

interface StatedDigests {
  kitVersion: string | undefined;
  digests: Map<string, string>;
}

/**
 * Returns the digests of evidence files that a certificate states; undefined if the text is not a certificate.
 * @throws KitError bad-usage when it has more values or levels than the limits allow.
 */
function parseStatedDigests(text: string, file: string): StatedDigests | undefined {
  let value: unknown;
  try {
    value = parseBoundedJson(Buffer.from(text, 'latin1'));
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw new KitError('bad-usage', `${file}: expected a certificate: ${messageOf(error)}`, { cause: error });
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

/** Returns `line:column` of the first byte that differs; undefined if the texts are equal. */
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

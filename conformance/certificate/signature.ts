import { createHash, createPublicKey, type KeyObject, verify } from 'node:crypto';
import type { Bundle } from '@sigstore/bundle';
import type { TrustedRoot } from '@sigstore/protobuf-specs';
import { KitError, messageOf } from '../errors.js';
import { readRegularFile } from '../read-file.js';

/*
 * Checks the signature of a certificate: of a key that the caller has, which needs no network, or of an identity, whose
 * short-lived certificate and entry in a transparency log a Sigstore bundle contains. The Sigstore project's own library
 * checks the latter.
 */

/** The file with the signature, and the key or identity that must have made it. */
export type SignatureQuery = {
  /**
   * File with the signature: a Sigstore bundle (also several, one per line), or for a key also the output of
   * `cosign sign-blob` or `openssl dgst -sign`.
   */
  signature: string;
} & (
  | {
      /** File with the public key, PEM. */
      key: string;
    }
  | {
      /** Subject of the signing certificate: a mail address, or the URL of a workflow with its ref. */
      identity: string;
      /** Issuer of the identity. Default: that of GitHub Actions, if the identity is a workflow on github.com. */
      issuer?: string;
      /** File with the trusted root of Sigstore (also several, one per line). Default: fetched from Sigstore by TUF. */
      trustedRoot?: string;
    }
);

/** Result of the check of a signature. */
export type SignatureCheck =
  | {
      ok: true;
      /** The identity or the key that signed. */
      signer: string;
      /** Issuer of the identity; null for a key. */
      issuer: string | null;
    }
  | {
      ok: false;
      /** Reason, one line. */
      problem: string;
    };

/** Upper bound of the files of a signature, a key and a trusted root, in bytes. Real ones have a few KB. */
const MAX_FILE_BYTES = 16 * 2 ** 20;
const GITHUB_WORKFLOW = 'https://github.com/';
const GITHUB_ISSUER = 'https://token.actions.githubusercontent.com';
const IN_TOTO = 'application/vnd.in-toto+json';
/** Digests with which a key may have signed; the digest is not part of a bare signature. */
const DIGESTS = ['sha256', 'sha384', 'sha512'] as const;

/**
 * Checks whether the bytes of a certificate were signed, either themselves or by an in-toto statement (attestation) about
 * their SHA-256.
 * @throws KitError bad-usage (exit code 2) when a file cannot be read or has another content, or when an issuer is
 *   missing; target-unavailable (exit code 3) when the trusted root cannot be fetched.
 */
export async function checkSignature(certificate: Buffer, query: SignatureQuery): Promise<SignatureCheck> {
  const bytes = readFile(query.signature, 'a signature');
  if ('key' in query) return checkKey(certificate, bytes, query.signature, query.key);
  const issuer = query.issuer ?? (query.identity.startsWith(GITHUB_WORKFLOW) ? GITHUB_ISSUER : undefined);
  if (issuer === undefined)
    throw new KitError('bad-usage', `--identity ${query.identity}: expected --issuer URL beside it`);
  const bundles = await Promise.all(
    sigstoreBundlesIn(bytes, query.signature).map((json) => parseBundle(json, query.signature)),
  );
  const roots = await trustedRoots(query.trustedRoot);
  const problems: string[] = [];
  for (const bundle of bundles) {
    for (const root of roots) {
      try {
        await verifyBundle(certificate, bundle, root, query.identity, issuer);
        return { ok: true, signer: query.identity, issuer };
      } catch (error) {
        problems.push(messageOf(error));
      }
    }
  }
  return { ok: false, problem: `${query.signature}: ${[...new Set(problems)].join('; ')}` };
}

/**
 * Checks one bundle against one trusted root.
 * @throws Error that says why the bundle is no signature of the identity over the certificate.
 */
async function verifyBundle(
  certificate: Buffer,
  bundle: Bundle,
  root: TrustedRoot,
  identity: string,
  issuer: string,
): Promise<void> {
  const { toSignedEntity, toTrustMaterial, Verifier } = await import('@sigstore/verify');
  if (bundle.verificationMaterial.content?.$case === 'publicKey')
    throw new Error('it was signed by a key, expected --key FILE');
  // Each kind of log that the trusted root knows must have an entry. The root of a private instance may have none.
  const verifier = new Verifier(toTrustMaterial(root), {
    tlogThreshold: root.tlogs.length > 0 ? 1 : 0,
    ctlogThreshold: root.ctlogs.length > 0 ? 1 : 0,
    timestampThreshold: 1,
  });
  const { identity: found } = verifier.verify(toSignedEntity(bundle, certificate));
  if (found?.subjectAlternativeName !== identity)
    throw new Error(`it was signed by ${found?.subjectAlternativeName}, expected ${identity}`);
  if (found.extensions?.issuer !== issuer)
    throw new Error(`the issuer of the identity is ${found.extensions?.issuer}, expected ${issuer}`);
  if (bundle.content?.$case === 'dsseEnvelope') {
    const { payload, payloadType } = bundle.content.dsseEnvelope;
    requireSubject(payload, payloadType, certificate);
  }
}

/** Requires that a signed in-toto statement is about the certificate. */
function requireSubject(payload: Buffer, payloadType: string, certificate: Buffer): void {
  if (payloadType !== IN_TOTO) throw new Error(`it signs ${payloadType}, expected ${IN_TOTO}`);
  const { subject } = JSON.parse(payload.toString('utf8')) as {
    subject?: { digest?: { sha256?: unknown } | null }[];
  };
  const digest = createHash('sha256').update(certificate).digest('hex');
  const isSubject = Array.isArray(subject) && subject.some((one) => one?.digest?.sha256 === digest);
  if (!isSubject) throw new Error(`it signs other files, expected the certificate with the sha256 ${digest}`);
}

/** Checks a signature with a public key. */
function checkKey(certificate: Buffer, bytes: Buffer, file: string, keyFile: string): SignatureCheck {
  const key = readKey(keyFile);
  const der = key.export({ type: 'spki', format: 'der' });
  const fingerprint = createHash('sha256').update(der).digest('hex');
  const problems: string[] = [];
  for (const { signature, data, check } of keySignaturesIn(bytes, file, certificate)) {
    try {
      if (!isSignedBy(key, data, signature))
        throw new Error(`it was not made by the key ${keyFile} over this certificate`);
      check?.();
      return { ok: true, signer: `the key ${keyFile} (sha256 ${fingerprint})`, issuer: null };
    } catch (error) {
      problems.push(messageOf(error));
    }
  }
  return { ok: false, problem: `${file}: ${[...new Set(problems)].join('; ')}` };
}

function isSignedBy(key: KeyObject, data: Buffer, signature: Buffer): boolean {
  const hasOwnDigest = key.asymmetricKeyType === 'ed25519' || key.asymmetricKeyType === 'ed448';
  return (hasOwnDigest ? [null] : DIGESTS).some((digest) => {
    try {
      return verify(digest, data, key, signature);
    } catch {
      // The signature has not even the form of one of this key.
      return false;
    }
  });
}

/** A signature, the bytes that it signs, and what else must hold. */
interface KeySignature {
  signature: Buffer;
  data: Buffer;
  check?: () => void;
}

/** Finds the signatures in a file of any of the forms that cosign and openssl write. */
function keySignaturesIn(bytes: Buffer, file: string, certificate: Buffer): KeySignature[] {
  const values = jsonValuesIn(bytes);
  if (values === undefined) {
    const text = bytes.toString('latin1').trim();
    const signature = /^[A-Za-z0-9+/\s]+={0,2}$/.test(text) ? Buffer.from(text, 'base64') : bytes;
    return [{ signature, data: certificate }];
  }
  return values.map((value) => {
    const { base64Signature, messageSignature, dsseEnvelope } = value as {
      /** `cosign sign-blob` before its version 3. */
      base64Signature?: unknown;
      messageSignature?: { signature?: unknown };
      dsseEnvelope?: { payload?: unknown; payloadType?: unknown; signatures?: { sig?: unknown }[] };
    };
    const message = base64Signature ?? messageSignature?.signature;
    if (typeof message === 'string') return { signature: Buffer.from(message, 'base64'), data: certificate };
    const sig = dsseEnvelope?.signatures?.[0]?.sig;
    const { payload, payloadType } = dsseEnvelope ?? {};
    if (typeof sig !== 'string' || typeof payload !== 'string' || typeof payloadType !== 'string')
      throw new KitError('bad-usage', `${file}: expected a signature, as cosign or openssl writes it`);
    const content = Buffer.from(payload, 'base64');
    return {
      signature: Buffer.from(sig, 'base64'),
      data: preAuthEncoding(payloadType, content),
      check: () => requireSubject(content, payloadType, certificate),
    };
  });
}

/** Returns the bytes that the signature of a DSSE envelope covers. */
function preAuthEncoding(type: string, payload: Buffer): Buffer {
  return Buffer.concat([
    Buffer.from(`DSSEv1 ${Buffer.byteLength(type)} ${type} ${payload.length} `),
    payload,
  ]);
}

function sigstoreBundlesIn(bytes: Buffer, file: string): unknown[] {
  const values = jsonValuesIn(bytes);
  if (values === undefined || values.length === 0)
    throw new KitError(
      'bad-usage',
      `${file}: expected a Sigstore bundle, as cosign or actions/attest writes it`,
    );
  return values;
}

async function parseBundle(json: unknown, file: string): Promise<Bundle> {
  const { bundleFromJSON } = await import('@sigstore/bundle');
  try {
    return bundleFromJSON(json);
  } catch (error) {
    throw new KitError('bad-usage', `${file}: expected a Sigstore bundle: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

async function trustedRoots(file: string | undefined): Promise<TrustedRoot[]> {
  if (file === undefined) {
    try {
      const { getTrustedRoot } = await import('@sigstore/tuf');
      return [await getTrustedRoot()];
    } catch (error) {
      throw new KitError(
        'target-unavailable',
        `the trusted root of Sigstore cannot be fetched: ${messageOf(error)}; expected a network, or --trusted-root FILE`,
        { cause: error },
      );
    }
  }
  const values = jsonValuesIn(readFile(file, 'a trusted root'));
  const { TrustedRoot } = await import('@sigstore/protobuf-specs');
  try {
    if (values === undefined || values.length === 0) throw new Error('it is no JSON');
    const roots = values.map((value) => TrustedRoot.fromJSON(value));
    if (roots.some(({ certificateAuthorities }) => certificateAuthorities.length === 0))
      throw new Error('it names no certificate authority');
    return roots;
  } catch (error) {
    throw new KitError(
      'bad-usage',
      `--trusted-root ${file}: expected a trusted root of Sigstore: ${messageOf(error)}`,
      {
        cause: error,
      },
    );
  }
}

/** Parses one JSON object, or one per line. Returns undefined when the bytes are neither. */
function jsonValuesIn(bytes: Buffer): object[] | undefined {
  const text = bytes.toString('utf8');
  const parse = (part: string): object => {
    const value: unknown = JSON.parse(part);
    if (typeof value !== 'object' || value === null) throw new Error('expected an object');
    return value;
  };
  try {
    return [parse(text)];
  } catch {
    // Several, or none.
  }
  try {
    return text
      .split('\n')
      .filter((line) => line.trim() !== '')
      .map(parse);
  } catch {
    return undefined;
  }
}

function readKey(file: string): KeyObject {
  const bytes = readFile(file, 'a public key');
  try {
    // createPublicKey would also accept a private key.
    if (bytes.includes('PRIVATE KEY')) throw new Error('it is a private key');
    return createPublicKey(bytes);
  } catch (error) {
    throw new KitError('bad-usage', `--key ${file}: expected a public key, PEM: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

function readFile(file: string, what: string): Buffer {
  try {
    return readRegularFile(file, MAX_FILE_BYTES);
  } catch (error) {
    throw new KitError('bad-usage', `${file}: expected ${what}: ${messageOf(error)}`, { cause: error });
  }
}

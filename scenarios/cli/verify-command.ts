import type { CertificateBody } from '../../conformance/certificate/certificate.js';
import {
  checkSignature,
  type SignatureCheck,
  type SignatureQuery,
} from '../../conformance/certificate/signature.js';
import { verifyCertificate } from '../../conformance/certificate/verify.js';
import { KitError } from '../../conformance/errors.js';
import { EXIT_CODES } from '../../conformance/exit-codes.js';
import { kitDigest, kitVersion } from '../host/version.js';
import { certificateSummary } from '../report/certificate-report.js';
import { reportResult } from '../report/reporters/registry.js';
import { styleFor } from '../report/style.js';

export interface VerifyFlags {
  signature?: string;
  key?: string;
  identity?: string;
  issuer?: string;
  trustedRoot?: string;
  json?: boolean;
}

/**
 * Verifies a certificate, and its signature if one is given. Resolves to exit code 0 when the evidence leads to the same
 * certificate and is plausible, and the signature is good; otherwise 1.
 */
export async function verifyCommand(file: string, flags: VerifyFlags): Promise<number> {
  const query = signatureQuery(flags);
  const {
    ok: consistent,
    problems: found,
    notes: differences,
    bytes,
    certified,
  } = verifyCertificate(file, kitVersion());
  const notes = [...differences, ...kitDifference(certified)];
  // Check the signature of an inconsistent certificate too: it says whether the certificate or the evidence was changed.
  const signature = query === undefined ? undefined : await checkSignature(bytes, query);
  const problems = [...found, ...(signature?.ok === false ? [`signature: ${signature.problem}`] : [])];
  const ok = problems.length === 0;
  const style = styleFor(process.stderr);
  const { target = null, verdict = null, granted = [] } = certified ?? {};
  const signed = signature?.ok === true ? { by: signature.signer, issuer: signature.issuer } : null;
  const summary = certified === undefined ? '' : `: ${certificateSummary(certified)}`;
  const outcome = ok
    ? `${style.good('consistent with its evidence')}; ${describeSignature(signature)}${summary}`
    : `${style.bad('not verified')}: ${file}`;
  reportResult(
    () => [...problems, ...notes.map((note) => `note: ${note}`), outcome],
    flags.json ? { ok, consistent, signed, problems, notes, target, verdict, granted } : undefined,
  );
  return ok ? EXIT_CODES.pass : EXIT_CODES.violation;
}

/** Notes that another build of the kit made the runs, as on a machine with other sources. */
function kitDifference(certified: CertificateBody | undefined): string[] {
  const { kitSha256 } = certified ?? {};
  if (kitSha256 === undefined || kitSha256 === kitDigest()) return [];
  return [`the runs were made by another build of plugpull than this one (sha256 ${kitSha256})`];
}

/** Says who signed. Only a signature that was checked counts. */
function describeSignature(signature: SignatureCheck | undefined): string {
  if (signature?.ok !== true) return 'not signed';
  const { signer, issuer } = signature;
  return `signed by ${signer}${issuer === null ? '' : `, issuer ${issuer}`}`;
}

/**
 * Combines the flags of a signature.
 * @throws KitError bad-usage when some of them are missing or contradict each other.
 */
function signatureQuery(flags: VerifyFlags): SignatureQuery | undefined {
  const { signature, key, identity, issuer, trustedRoot } = flags;
  const fail = (message: string) => new KitError('bad-usage', message);
  if (signature === undefined) {
    const given = Object.entries({ key, identity, issuer, 'trusted-root': trustedRoot });
    const [name] = given.find(([, value]) => value !== undefined) ?? [];
    if (name === undefined) return undefined;
    throw fail(`--${name}: expected --signature FILE beside it`);
  }
  if (key !== undefined && identity !== undefined)
    throw fail('--key and --identity: expected one of them, as a signature is made by a key or an identity');
  if (key !== undefined) {
    if (issuer !== undefined || trustedRoot !== undefined)
      throw fail('--key: expected no --issuer and no --trusted-root, which belong to --identity');
    return { signature, key };
  }
  if (identity === undefined)
    throw fail(`--signature ${signature}: expected --key FILE or --identity ID beside it`);
  return {
    signature,
    identity,
    ...(issuer === undefined ? {} : { issuer }),
    ...(trustedRoot === undefined ? {} : { trustedRoot }),
  };
}

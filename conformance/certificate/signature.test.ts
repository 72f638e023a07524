import { generateKeyPairSync, sign } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { type SigningOptions, TestSigstore } from '../fixtures/sigstore.js';
import { sha256 } from './evidence.js';
import { checkSignature, type SignatureQuery } from './signature.js';

const CERTIFICATE = Buffer.from('{"_type": "https://in-toto.io/Statement/v1"}\n');
const IDENTITY = 'https://github.com/acme/queue/.github/workflows/certify.yml@refs/heads/main';
const ISSUER = 'https://token.actions.githubusercontent.com';
const STATEMENT = {
  _type: 'https://in-toto.io/Statement/v1',
  subject: [{ name: 'certificate.json', digest: { sha256: sha256(CERTIFICATE) } }],
  predicateType: 'https://slsa.dev/provenance/v1',
  predicate: {},
};

/** Writes files into a directory of the test and returns their path. */
function writer(t: {
  teardown(remove: () => void): void;
}): (name: string, content: string | Buffer | object) => string {
  const dir = mkdtempSync(join(tmpdir(), 'plugpull-signature-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  return (name, content) => {
    const path = join(dir, name);
    const isText = typeof content === 'string' || Buffer.isBuffer(content);
    writeFileSync(path, isText ? content : JSON.stringify(content));
    return path;
  };
}

t.test('a Sigstore bundle is checked against the trusted root, the identity and the issuer', async (t) => {
  const write = writer(t);
  const sigstore = new TestSigstore();
  const trustedRoot = write('root.json', sigstore.trustedRoot());
  const good: SigningOptions = { identity: IDENTITY, issuer: ISSUER };
  const check = (bundle: object | string, query: Partial<SignatureQuery> = {}) => {
    const signature = write('bundle.json', bundle);
    return checkSignature(CERTIFICATE, {
      signature,
      identity: IDENTITY,
      trustedRoot,
      ...query,
    } as SignatureQuery);
  };
  const signed = { ok: true, signer: IDENTITY, issuer: ISSUER } as const;
  t.same(await check(sigstore.sign(CERTIFICATE, good)), signed, 'over the bytes');
  t.same(
    await check(sigstore.sign(CERTIFICATE, { ...good, statement: STATEMENT })),
    signed,
    'as an attestation',
  );
  const other = JSON.stringify(sigstore.sign(CERTIFICATE, { ...good, artifact: Buffer.from('x') }));
  t.same(
    await check(`${other}\n${JSON.stringify(sigstore.sign(CERTIFICATE, good))}\n`),
    signed,
    'one of several',
  );
  const mail = { identity: 'a@b.example', issuer: 'https://accounts.google.com' };
  t.same(await check(sigstore.sign(CERTIFICATE, mail), mail), {
    ok: true,
    signer: mail.identity,
    issuer: mail.issuer,
  });

  const refused: [string, object, RegExp, Partial<SignatureQuery>?][] = [
    [
      'other bytes',
      sigstore.sign(CERTIFICATE, { ...good, artifact: Buffer.from('other') }),
      /signature verification failed|mismatch/,
    ],
    [
      'an attestation of other files',
      sigstore.sign(CERTIFICATE, {
        ...good,
        statement: { ...STATEMENT, subject: [{ digest: { sha256: '0' } }, {}] },
      }),
      /it signs other files, expected the certificate with the sha256 [0-9a-f]{64}$/,
    ],
    [
      'another identity',
      sigstore.sign(CERTIFICATE, { ...good, identity: `${IDENTITY}x` }),
      /it was signed by \S+mainx, expected \S+main$/,
    ],
    [
      'an identity that a pattern would accept',
      sigstore.sign(CERTIFICATE, good),
      /it was signed by/,
      { identity: 'https://github.com/.*' },
    ],
    [
      'another issuer',
      sigstore.sign(CERTIFICATE, { ...good, issuer: 'https://evil.test' }),
      /issuer of the identity is https:\/\/evil\.test, expected/,
    ],
    ['another instance', new TestSigstore().sign(CERTIFICATE, good), /certificate|inclusion/],
    [
      'no entry in the log',
      sigstore.sign(CERTIFICATE, { ...good, withEntry: false }),
      /expected 1 timestamps, got 0/,
    ],
    [
      'no entry in the log of certificates',
      sigstore.sign(CERTIFICATE, { ...good, withSct: false }),
      /expected 1 SCTs, got 0/,
    ],
  ];
  for (const [what, bundle, expected, query] of refused) {
    const result = await check(bundle, query);
    t.match(result, { ok: false, problem: expected }, what);
    t.match(result, { problem: /^\S+bundle\.json: [^\n]+$/ });
  }
});

t.test('a signature of a key needs no network, in each form that cosign and openssl write', async (t) => {
  const write = writer(t);
  const pairs = [
    generateKeyPairSync('ec', { namedCurve: 'P-256' }),
    generateKeyPairSync('ed25519'),
    generateKeyPairSync('rsa', { modulusLength: 2048 }),
  ];
  for (const { publicKey, privateKey } of pairs) {
    const name = publicKey.asymmetricKeyType ?? '';
    const key = write(`${name}.pub`, publicKey.export({ type: 'spki', format: 'pem' }));
    const signOver = (data: Buffer) => sign(name === 'ed25519' ? null : 'sha256', data, privateKey);
    const payload = Buffer.from(JSON.stringify(STATEMENT));
    const type = 'application/vnd.in-toto+json';
    const envelope = (content: Buffer, signed: Buffer) => ({
      dsseEnvelope: {
        payload: content.toString('base64'),
        payloadType: type,
        signatures: [
          { sig: signOver(Buffer.from(`DSSEv1 28 ${type} ${signed.length} ${signed}`)).toString('base64') },
        ],
      },
    });
    const signature = signOver(CERTIFICATE);
    const text = signature.toString('base64');
    const forms = {
      'binary.sig': signature,
      'base64.sig': `${text}\n`,
      'cosign-2.json': { base64Signature: text, cert: '' },
      'bundle.json': {
        verificationMaterial: { publicKey: { hint: '' } },
        messageSignature: { signature: text },
      },
      'attestation.json': envelope(payload, payload),
    };
    for (const [form, content] of Object.entries(forms)) {
      const result = await checkSignature(CERTIFICATE, { signature: write(form, content), key });
      t.match(
        result,
        { ok: true, signer: /^the key \S+\.pub \(sha256 [0-9a-f]{64}\)$/, issuer: null },
        `${name} ${form}`,
      );
      const forged = await checkSignature(Buffer.from('forged'), { signature: write(form, content), key });
      t.match(
        forged,
        { ok: false, problem: /it was not made by the key|it signs other files/ },
        `${name} ${form}`,
      );
    }
    const swapped = await checkSignature(CERTIFICATE, {
      signature: write('swapped.json', envelope(payload, Buffer.from('{}'))),
      key,
    });
    t.match(swapped, { ok: false, problem: /it was not made by the key/ });
  }
});

t.test('a wrong file or a missing issuer is bad usage, in one line', async (t) => {
  const write = writer(t);
  const sigstore = new TestSigstore();
  const { publicKey, privateKey } = generateKeyPairSync('ed25519');
  const key = write('key.pub', publicKey.export({ type: 'spki', format: 'pem' }));
  const trustedRoot = write('root.json', sigstore.trustedRoot());
  const signature = write('b.json', sigstore.sign(CERTIFICATE, { identity: IDENTITY, issuer: ISSUER }));
  const cases: [SignatureQuery, RegExp][] = [
    [{ signature: 'missing', key }, /^missing: expected a signature: ENOENT/],
    [{ signature, key: 'missing' }, /^missing: expected a public key: ENOENT/],
    [{ signature, key: signature }, /^--key \S+b\.json: expected a public key, PEM/],
    [
      { signature, key: write('private', privateKey.export({ type: 'pkcs8', format: 'pem' })) },
      /: it is a private key$/,
    ],
    [{ signature: write('empty.json', {}), key }, /empty\.json: expected a signature, as cosign or openssl/],
    [{ signature, identity: 'a@b.example', trustedRoot }, /^--identity a@b\.example: expected --issuer URL/],
    [
      { signature: write('text', 'text'), identity: IDENTITY, trustedRoot },
      /text: expected a Sigstore bundle/,
    ],
    [
      { signature: write('other.json', { a: 1 }), identity: IDENTITY, trustedRoot },
      /other\.json: expected a Sigstore bundle/,
    ],
    [
      { signature, identity: IDENTITY, trustedRoot: signature },
      /^--trusted-root \S+: expected a trusted root/,
    ],
    [
      { signature, identity: IDENTITY, trustedRoot: write('no-root', 'x') },
      /^--trusted-root \S+: expected a trusted root/,
    ],
  ];
  for (const [query, message] of cases)
    await t.rejects(checkSignature(CERTIFICATE, query), { exitCode: 2, message }, `${message}`);
});

import { generateKeyPairSync, sign } from 'node:crypto';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import t from 'tap';
import { certificateOf, certificateText } from '../../conformance/certificate/certificate.js';
import { readEvidence } from '../../conformance/certificate/evidence.js';
import { certified, goodRun } from '../../conformance/fixtures/certified.js';
import { TestSigstore } from '../../conformance/fixtures/sigstore.js';
import { TestWorkspace } from '../fixtures/kit.js';

const IDENTITY = 'https://github.com/acme/queue/.github/workflows/certify.yml@refs/heads/main';
const ISSUER = 'https://token.actions.githubusercontent.com';
const SUMMARY = 'small, pass, level process';

function forged(t: { teardown(remove: () => void): void }, { atRisk = 1 } = {}) {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  // Nothing is run: the history is written by hand, and the certificate follows from it.
  const events = goodRun({ fault: 'kill', atRisk }, { fault: 'kill-recovery' }).events;
  const { dir, file } = certified({ process: events });
  t.teardown(() => rmSync(dirname(dir), { recursive: true, force: true }));
  const verify = (...args: string[]) => workspace.run(['verify', file, ...args]);
  const write = (name: string, content: string | Buffer) => {
    writeFileSync(join(workspace.dir, name), content);
    return join(workspace.dir, name);
  };
  return { file, bytes: readFileSync(file), verify, write };
}

t.test(
  'a certificate that was written by hand is called consistent and not signed, never verified',
  async (t) => {
    const { verify } = forged(t);
    const { code, stderr } = await verify();
    t.equal(code, 0, stderr);
    t.equal(stderr.trim().split('\n').at(-1), `consistent with its evidence; not signed: ${SUMMARY}`);
    t.notMatch(stderr, /verified/);
    t.match(JSON.parse((await verify('--json')).stdout), {
      ok: true,
      consistent: true,
      signed: null,
      problems: [],
    });
  },
);

t.test('a certificate whose evidence contradicts itself is refused', async (t) => {
  const { verify, file } = forged(t, { atRisk: 7790 });
  const { code, stderr, stdout } = await verify('--json');
  t.equal(code, 1);
  t.match(
    stderr,
    /process\.history\.jsonl\.gz:\d+: 7790 messages at risk at injection 1, and 1 were confirmed/,
  );
  t.equal(stderr.trim().split('\n').at(-1), `not verified: ${file}`);
  t.match(JSON.parse(stdout), { ok: false, consistent: false, signed: null });
});

t.test('another build of a program or of the kit is a note', async (t) => {
  const { verify, file } = forged(t);
  const facts = join(dirname(file), 'evidence/facts.json');
  const text = readFileSync(facts, 'utf8');
  const programs = [{ name: 'node', path: process.execPath, sha256: '0'.repeat(64) }];
  writeFileSync(facts, JSON.stringify({ ...JSON.parse(text), programs, kitSha256: '1'.repeat(64) }));
  writeFileSync(file, certificateText(certificateOf(readEvidence(dirname(file)))));
  const { code, stderr } = await verify();
  t.equal(code, 0, stderr);
  t.match(stderr, /^note: node: \S+ of this machine is another build than the certified one/m);
  t.match(stderr, /^note: the runs were made by another build of plugpull than this one \(sha256 1+\)$/m);
});

t.test('a signature names its signer only when it was checked', async (t) => {
  const { bytes, verify, write } = forged(t);
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const key = write('cosign.pub', publicKey.export({ type: 'spki', format: 'pem' }).toString());
  const signature = write('good.sig', sign('sha256', bytes, privateKey).toString('base64'));
  const byKey = await verify('--signature', signature, '--key', key, '--json');
  t.equal(byKey.code, 0, byKey.stderr);
  t.match(
    byKey.stderr,
    /\nconsistent with its evidence; signed by the key \S+cosign\.pub \(sha256 \w+\): small, pass, level process\n$/,
  );
  t.match(JSON.parse(byKey.stdout), { ok: true, signed: { by: /^the key/, issuer: null } });

  const bad = await verify(
    '--signature',
    write('bad.sig', sign('sha256', Buffer.from('x'), privateKey)),
    '--key',
    key,
    '--json',
  );
  t.equal(bad.code, 1);
  t.match(bad.stderr, /^signature: \S+bad\.sig: it was not made by the key \S+ over this certificate\n/);
  t.match(bad.stderr, /\nnot verified: \S+\n$/);
  t.match(JSON.parse(bad.stdout), { ok: false, consistent: true, signed: null, problems: [/^signature: /] });

  const sigstore = new TestSigstore();
  const root = write('root.json', JSON.stringify(sigstore.trustedRoot()));
  const bundle = write(
    'bundle.json',
    JSON.stringify(sigstore.sign(bytes, { identity: IDENTITY, issuer: ISSUER })),
  );
  const trust = ['--signature', bundle, '--trusted-root', root];
  const byIdentity = await verify(...trust, '--identity', IDENTITY);
  t.equal(byIdentity.code, 0, byIdentity.stderr);
  t.match(
    byIdentity.stderr,
    `consistent with its evidence; signed by ${IDENTITY}, issuer ${ISSUER}: ${SUMMARY}\n`,
  );
  const other = await verify(...trust, '--identity', `${IDENTITY}.evil`);
  t.match(other, { code: 1, stderr: /^signature: .*it was signed by \S+, expected \S+\.evil\n/ });
});

t.test('flags of a signature that do not belong together are bad usage', async (t) => {
  const { verify } = forged(t);
  const cases: [string[], RegExp][] = [
    [['--key', 'k'], /^plugpull: --key: expected --signature FILE beside it\n$/],
    [['--trusted-root', 'k'], /^plugpull: --trusted-root: expected --signature FILE/],
    [['--signature', 's'], /^plugpull: --signature s: expected --key FILE or --identity ID beside it/],
    [['--signature', 's', '--key', 'k', '--identity', 'i'], /--key and --identity: expected one of them/],
    [['--signature', 's', '--key', 'k', '--issuer', 'i'], /--key: expected no --issuer/],
    [['--signature', 's', '--key', 'k'], /^plugpull: s: expected a signature: ENOENT/],
  ];
  for (const [args, stderr] of cases) t.match(await verify(...args), { code: 2, stderr });
});

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { CertificateBody } from '../../conformance/certificate/certificate.js';
import { processesBelow, TestWorkspace } from '../fixtures/kit.js';

function newWorkspace(t: { teardown(remove: () => void): void }): TestWorkspace {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  return workspace;
}

t.test(
  'a correct queue gets a certificate, and the certificate verifies until a byte of it changes',
  async (t) => {
    const workspace = newWorkspace(t);
    const target = workspace.queue('');
    const out = join(workspace.dir, 'out');
    const args = ['certify', target, '--budget', '25s', '--seed', '3', '--out', out, '--json'];
    const { code, stdout, stderr } = await workspace.run(args);
    const certified = JSON.parse(stdout) as CertificateBody & { certificate: string };
    // PP-5 is measured only when an indefinite message is delivered, and that is chance.
    const chance = certified.requirements.some(
      ({ id, verdict }) => id === 'PP-5' && verdict === 'not-measured',
    );
    t.equal(code, chance ? 3 : 0, stderr);
    t.same(certified.granted, chance ? [] : ['process']);
    t.match(stderr, chance ? /PP-5/ : /granted +process/);
    t.equal(certified.certificate, join(out, 'certificate.json'));
    t.notOk(existsSync(join(out, 'runs', 'process')), 'a run that passed leaves only its evidence');
    t.ok(existsSync(join(out, 'evidence/target')));

    const verified = await workspace.run(['verify', certified.certificate, '--json']);
    t.equal(verified.code, 0, verified.stderr);
    t.match(JSON.parse(verified.stdout), {
      ...{ ok: true, consistent: true, signed: null, notes: [] },
      ...{ problems: [], granted: certified.granted },
    });
    t.match(verified.stderr, /^consistent with its evidence; not signed: /m);
    const text = readFileSync(certified.certificate, 'utf8');
    writeFileSync(certified.certificate, text.replace('"kill": ', '"kill": 1'));
    const changed = await workspace.run(['verify', certified.certificate]);
    t.equal(changed.code, 1);
    t.match(changed.stderr, /certificate\.json:\d+:\d+ is not what the evidence gives\n.*not verified/);
    t.same(processesBelow(workspace.dir), []);
  },
);

t.test('a queue that loses messages gets a certificate without levels, and exit code 1', async (t) => {
  const workspace = newWorkspace(t);
  const target = workspace.queue('confirms-early');
  const { code, stdout, stderr } = await workspace.run([
    'certify',
    target,
    '--budget',
    '6s',
    '--seed',
    '3',
    '--json',
  ]);
  t.equal(code, 1, stderr);
  const certified = JSON.parse(stdout) as CertificateBody & { certificate: string };
  t.same(certified.granted, []);
  t.equal(certified.verdict, 'fail');
  t.match(stderr, /run it again: node \S+main\.js gate .* --faults kill/);
  t.equal(
    (await workspace.run(['verify', certified.certificate])).code,
    0,
    'a certificate without levels verifies too',
  );
});

t.test('a file that cannot be certified or verified is reported in one line', async (t) => {
  const workspace = newWorkspace(t);
  writeFileSync(join(workspace.dir, 'nonsense.json'), '[]');
  const cases: [string[], number, RegExp][] = [
    [['verify', 'nonsense.json'], 2, /nonsense\.json: expected a certificate/],
    [['verify', 'missing.json'], 2, /missing\.json: expected a certificate/],
    [['certify', 'missing.json'], 2, /missing\.json/],
    [['certify', workspace.queue(''), '--out', '.'], 2, /--out \.: expected a directory that is empty/],
  ];
  for (const [args, code, expected] of cases) {
    const ended = await workspace.run(args);
    t.equal(ended.code, code, args.join(' '));
    t.match(ended.stderr, expected);
    t.equal(ended.stderr.trim().split('\n').length, 1);
  }
});

import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import t from 'tap';
import { certified, goodRun } from '../fixtures/certified.js';
import { readEvidence } from './evidence.js';
import { verifyCertificate } from './verify.js';

/** Makes a certificate with its evidence, and a file outside that no output may show. */
function made(t: { teardown(remove: () => void): void }) {
  const place = certified({ process: goodRun({ fault: 'kill' }, { fault: 'kill-recovery' }).events });
  const outside = dirname(place.dir);
  t.teardown(() => rmSync(outside, { recursive: true, force: true }));
  const secret = join(outside, 'secret');
  mkdirSync(secret);
  for (const name of ['target.json', 'queue.sh', 'shadow'])
    writeFileSync(join(secret, name), 'root:secret\n');
  return { ...place, secret };
}

/** Replaces a part of the evidence, or adds one. */
const REPLACEMENTS: [part: string, what: RegExp, replace: (path: string, secret: string) => void][] = [
  ['evidence/extra', /is a symbolic link/, (path, secret) => symlinkSync(join(secret, 'shadow'), path)],
  ['evidence/facts.json', /is a symbolic link/, (path, secret) => symlinkSync(join(secret, 'shadow'), path)],
  ['evidence/process.history.jsonl.gz', /is a pipe/, (path) => void execFileSync('mkfifo', [path])],
  ['evidence/target/queue.sh', /is a symbolic link/, (path, secret) => symlinkSync(`${secret}/shadow`, path)],
  ['evidence/target', /is a symbolic link/, (path, secret) => symlinkSync(secret, path)],
  ['evidence', /is a symbolic link/, (path, secret) => symlinkSync(secret, path)],
  ['evidence/zero', /is a symbolic link/, (path) => symlinkSync('/dev/zero', path)],
  ['evidence/dangling', /is a symbolic link/, (path) => symlinkSync('/nowhere', path)],
];

t.test(
  'evidence with a link or a pipe in it is refused in one line, and nothing is read through it',
  async (t) => {
    for (const [part, what, replace] of REPLACEMENTS) {
      const { dir, file, secret } = made(t);
      rmSync(join(dir, part), { recursive: true, force: true });
      replace(join(dir, part), secret);
      const error = { code: 'bad-history', exitCode: 2, message: new RegExp(`^${part}: ${what.source}`) };
      t.throws(() => verifyCertificate(file, '1.2.3'), error, part);
      t.throws(() => readEvidence(dir), error, part);
    }
  },
);

t.test('facts that name a target file outside the evidence are refused', async (t) => {
  const { dir } = made(t);
  const facts = join(dir, 'evidence/facts.json');
  const text = readFileSync(facts, 'utf8');
  for (const path of ['../../../secret/target.json', '/etc/passwd', 'a/../../x', '..']) {
    writeFileSync(facts, text.replace('"target.json"', JSON.stringify(path)));
    t.throws(() => readEvidence(dir), {
      ...{ code: 'bad-history', exitCode: 2 },
      message: /expected a file in this folder/,
    });
  }
});

t.test('a folder of evidence that is itself reached by a link is read', async (t) => {
  const { dir } = made(t);
  renameSync(dir, `${dir}-moved`);
  symlinkSync(`${dir}-moved`, dir);
  t.equal(readEvidence(dir).histories.length, 1, 'the path that the user gave may be a link');
});

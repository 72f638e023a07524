import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import t, { type Test } from 'tap';
import { testDirectories } from '../../faults/fixtures/fault-context.js';
import { straceAvailability } from '../../faults/programs.js';
import { loadExpectedSystems, SYSTEMS_DIR } from './expected.js';
import { installSystem, isInstalled } from './install.js';

/**
 * A delivery of Exim 4.96 rewrites the header file of a message: it writes another file, renames it and syncs the
 * directory. If this last step fails, Exim removes the file under its new name (finding 17 in FINDINGS.md).
 */
const [exim] = loadExpectedSystems(['exim']);
if (exim === undefined) throw new Error('expected exim in expected.json');
const strace = straceAvailability();
const root = process.getuid?.() === 0 ? undefined : 'not measured: Exim starts only as root';
if (root === undefined) installSystem(exim, (line) => t.comment(line));
const missing = isInstalled(exim) ? undefined : 'not measured: Exim is not installed';
const skip = root ?? missing ?? (strace.available ? false : strace.why);

/** Address without a listener: every delivery is deferred, and Exim rewrites the header file. */
const NO_SINK = '127.0.0.1:9';
const MAIL = [
  'EHLO producer.plugpull.test',
  'MAIL FROM:<producer@plugpull.test>',
  'RCPT TO:<receiver@plugpull.test>',
  'DATA',
  'Subject: one',
  '',
  'body',
  '.',
  'QUIT',
  '',
].join('\r\n');

/** Makes a spool with one confirmed mail, and returns how to run Exim on it. */
function spoolWithMail(t: Test) {
  const { dataDir, scratchDir, remove } = testDirectories();
  t.teardown(remove);
  const script = join(SYSTEMS_DIR, 'exim.sh');
  // Exim's own user must be able to enter the directories.
  for (const path of [dirname(dataDir), dataDir]) chmodSync(path, 0o755);
  t.equal(spawnSync('sh', [script, 'install', dataDir]).status, 0);
  const run = (args: string[], input = '', before: string[] = []) => {
    const [program = '', ...words] = [...before, 'sh', script, 'serve', dataDir, '25', NO_SINK, ...args];
    return spawnSync(program, words, { input, encoding: 'utf8' });
  };
  // -odq: store the mail, and leave the delivery to a queue run.
  const { stdout, stderr } = run(['-odq', '-bs'], MAIL);
  t.match(stdout, /^250 OK id=/m, stderr);
  const spoolFiles = () =>
    readdirSync(join(dataDir, 'exim/input'))
      .map((name) => name.slice(name.lastIndexOf('-')))
      .sort();
  t.strictSame(spoolFiles(), ['-D', '-H']);
  return { run, spoolFiles, traceFile: join(scratchDir, 'strace') };
}

t.test('a deferred delivery keeps the mail', { skip }, async (t) => {
  const { run, spoolFiles } = spoolWithMail(t);
  run(['-qff']);
  t.strictSame(spoolFiles(), ['-D', '-H']);
});

t.test('a failed sync of the directory during a delivery destroys a confirmed mail', { skip }, async (t) => {
  const { run, spoolFiles, traceFile } = spoolWithMail(t);
  const trace = ['-f', '-y', '-o', traceFile, '-e', 'trace=/^rename,/^unlink,fsync'];
  run(['-qff'], '', ['strace', ...trace, '-e', 'inject=fsync:error=EIO:when=2']);
  t.ok(existsSync(traceFile));
  const calls = readFileSync(traceFile, 'utf8')
    .split('\n')
    .filter((line) => /hdr\.|input>|-H"/.test(line));
  const at = (pattern: RegExp) => calls.findIndex((line) => pattern.test(line));
  const renamed = at(/rename\("\S+hdr\.\S+", "\S+-H"\) += 0/);
  const failed = at(/fsync\(\d+<.*input>\) += -1 EIO/);
  const removed = at(/unlink\("\S+-H"\) += 0/);
  t.ok(renamed >= 0 && renamed < failed && failed < removed, calls.join('\n'));
  t.notOk(spoolFiles().includes('-H'), 'the header file is gone, and with it the mail');
});

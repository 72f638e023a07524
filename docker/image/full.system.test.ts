import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  lstatSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import Dockerode from 'dockerode';
import t, { type Test } from 'tap';
import { fullImage } from './full.js';

const root = join(dirname(fileURLToPath(import.meta.url)), '../../..');
const engine = new Dockerode();
const answers = await engine.ping().then(
  () => true,
  () => false,
);
const hasCommand = await promisify(execFile)('docker', ['--version']).then(
  () => true,
  () => false,
);
const skip =
  answers && hasCommand ? false : 'not measured: no container engine answers, or there is no docker command';
/** The first build makes a Debian root. */
const BUILD_TIMEOUT_MS = 380_000;
const OWNER = 12345;

let image = '';

t.test(
  'the image is built, and an unchanged tree is not built again',
  { skip, timeout: BUILD_TIMEOUT_MS },
  async (t) => {
    const said: string[] = [];
    const workDir = mkdtempSync(join(tmpdir(), 'plugpull-full-'));
    t.teardown(() => rmSync(workDir, { recursive: true, force: true }));
    const options = { engine, root, workDir, say: (line: string) => void said.push(line) };
    image = await fullImage(options);
    said.length = 0;
    t.equal(await fullImage(options), image);
    t.same(said, []);
    t.same(readdirSync(workDir), [], 'the build leaves no files');
  },
);

/** Makes a folder of another user with an example of a target. */
function newFolder(t: Test, example: string): string {
  const dir = mkdtempSync(join(tmpdir(), 'plugpull-full-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  cpSync(join(root, 'conformance/examples', example), dir, { recursive: true });
  chmodSync(dir, 0o755);
  if (process.getuid?.() === 0)
    for (const name of ['', ...readdirSync(dir)]) chownSync(join(dir, name), OWNER, OWNER);
  return dir;
}

/** Starts the image as a user would, on the folder. */
function start(folder: string, args: readonly string[]) {
  const child = spawn('docker', ['run', '--rm', '-v', `${folder}:/work`, image, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => {
      output += chunk.toString();
    });
  const ended = once(child, 'close').then(([code]) => ({ code: code as number | null, output }));
  return { child, ended, output: () => output };
}

for (const example of ['javascript', 'python'])
  t.test(
    `a gate on the ${example} example passes, and its evidence belongs to the owner of the folder`,
    { skip, timeout: 200_000 },
    async (t) => {
      const folder = newFolder(t, example);
      const args = [
        'gate',
        'target.json',
        '--faults',
        'kill',
        '--rounds',
        '1',
        '--budget',
        '60s',
        '--out',
        'evidence',
      ];
      const { code, output } = await start(folder, args).ended;
      t.equal(code, 0, output);
      const events = readFileSync(join(folder, 'evidence/history.jsonl'), 'utf8');
      t.match(events, /"kind":"fault".*"hit":true/, 'a fault hit');
      for (const path of ['evidence', 'evidence/history.jsonl', '.plugpull'])
        t.equal(lstatSync(join(folder, path)).uid, lstatSync(folder).uid, path);
    },
  );

t.test('an exit code and an error pass through', { skip, timeout: 200_000 }, async (t) => {
  const folder = newFolder(t, 'javascript');
  const { code, output } = await start(folder, ['gate', 'none.json']).ended;
  t.equal(code, 2);
  t.match(output, /none\.json/);
});

t.test(
  'a fault that needs rights is not measured without them, and the report names the flags',
  { skip, timeout: 200_000 },
  async (t) => {
    const { code, output } = await start(newFolder(t, 'javascript'), [
      'gate',
      'target.json',
      '--faults',
      'power-cut',
    ]).ended;
    t.equal(code, 3, output);
    t.match(output, /no fault can be tried: power-cut: .*--cap-add SYS_ADMIN/);
  },
);

t.test('Ctrl-C ends the run with its exit code', { skip, timeout: 200_000 }, async (t) => {
  const folder = newFolder(t, 'javascript');
  const run = start(folder, ['gate', 'target.json', '--faults', 'kill', '--budget', '300s']);
  await new Promise<void>((resolve) => {
    const look = () => /round 1/.test(run.output()) && resolve();
    run.child.stderr.on('data', look);
    run.child.once('close', () => resolve());
  });
  run.child.kill('SIGINT');
  const { code, output } = await run.ended;
  t.equal(code, 130, output);
  const runs = join(folder, '.plugpull/runs');
  t.same(existsSync(runs) ? readdirSync(runs) : [], [], 'the interrupted run leaves no evidence');
});

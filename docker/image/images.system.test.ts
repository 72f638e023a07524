import { appendFileSync, cpSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { PassThrough } from 'node:stream';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import Dockerode from 'dockerode';
import t from 'tap';
import { buildImage, hasImage } from './build-image.js';
import { digestOf, kitFiles, referenceFiles, referencePrograms } from './context.js';
import { kitImage, referenceImage } from './images.js';

const root = join(dirname(fileURLToPath(import.meta.url)), '../../..');
const built = join(root, 'dist/reference-impl');
const engine = new Dockerode();
const answers = await engine.ping().then(
  () => true,
  () => false,
);
const skip = answers ? false : 'no container engine answers: npm run setup';

function newDir(t: { teardown(remove: () => void): void }): string {
  const dir = mkdtempSync(join(tmpdir(), 'plugpull-image-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

t.test('a build context contains the programs, and neither tests nor types', async (t) => {
  const files = [...referenceFiles(root, built), ...kitFiles(root)].map(({ to }) => to);
  const programs = referencePrograms(built);
  t.ok(programs.includes('synchronous/main.js'));
  for (const program of programs)
    t.ok(files.includes(`reference/package/dist/reference-impl/${program}`), program);
  const targets = files.filter((to) => to.startsWith('reference/package/conformance/'));
  t.equal(targets.length, programs.length, `${targets}`);
  t.ok(targets.includes('reference/package/conformance/targets/reference.json'));
  t.ok(files.includes('kit/package/dist/scenarios/cli/main.js'));
  t.ok(files.some((to) => to.startsWith('reference/node_modules/koffi/')));
  t.same(
    files.filter((to) => /\.test\.js$|\.[cm]?ts$|node_modules\/(tap|typescript|@types)\//.test(to)),
    [],
  );
  t.equal(new Set(files).size, files.length, 'each file once');
});

t.test('the digest of a context depends on its bytes and on the base, not on its location', async (t) => {
  const dir = newDir(t);
  const copy = join(dir, 'reference-impl');
  cpSync(built, copy, { recursive: true });
  const digest = () => digestOf(referenceFiles(root, copy));
  const first = digest();
  t.equal(first, digestOf(referenceFiles(root, built)), 'the location of the files does not matter');
  appendFileSync(join(copy, 'synchronous/main.js'), '\n');
  t.not(digest(), first);
  t.not(digestOf(referenceFiles(root, built), 'another base'), first);
});

t.test(
  'an unchanged tree is not built again, and a changed copy gets its own image',
  {
    skip,
    timeout: 200_000,
  },
  async (t) => {
    const dir = newDir(t);
    const said: string[] = [];
    const options = { engine, root, workDir: join(dir, 'work'), say: (line: string) => void said.push(line) };
    const name = await referenceImage(options);
    said.length = 0;
    t.equal(await referenceImage(options), name);
    t.same(said, []);
    const copy = join(dir, 'reference-impl');
    cpSync(built, copy, { recursive: true });
    appendFileSync(join(copy, 'synchronous/main.js'), `// ${dir}\n`);
    const changed = await referenceImage({ ...options, built: copy });
    t.teardown(() => engine.getImage(changed).remove({ force: true }));
    t.not(changed, name);
    t.match(said.at(-1), `built ${changed}`);
    t.same(readdirSync(options.workDir), [], 'the build leaves no files');
    const { Size } = await engine.getImage(name).inspect();
    t.ok(Size < 160e6, `${Math.round(Size / 1e6)} MB`);
  },
);

t.test(
  'both images run their programs with the addons that they need',
  {
    skip,
    timeout: 200_000,
  },
  async (t) => {
    const options = { engine, root, workDir: newDir(t), say: () => {} };
    const queue = ['install', '--queue', '/tmp/queue', '--data-bytes', '1MiB', '--entries', '64'];
    const installed = await run(await referenceImage(options), queue);
    t.match(installed, { code: 0, output: '"event":"installed"' });
    const version = await run(await kitImage(options), ['--version']);
    t.match(version, { code: 0, output: /^\d+\.\d+\.\d+/ });
  },
);

t.test('a failed build reports the output of the engine, and leaves no image', { skip }, async (t) => {
  const dir = newDir(t);
  const tag = `plugpull/test:${process.pid}`;
  appendFileSync(join(dir, 'Dockerfile'), 'FROM scratch\nCOPY not-there /\n');
  await t.rejects(buildImage(engine, dir, { tag }), /plugpull\/test.*not-there/s);
  t.equal(await hasImage(engine, tag), false);
});

async function run(image: string, command: string[]): Promise<{ code: number; output: string }> {
  const container = await engine.createContainer({
    Image: image,
    Cmd: command,
    HostConfig: { NetworkMode: 'none' },
  });
  try {
    const stream = await container.attach({ stream: true, stdout: true, stderr: true });
    const output = new PassThrough();
    engine.modem.demuxStream(stream, output, output);
    stream.on('end', () => output.end());
    await container.start();
    const { StatusCode } = (await container.wait()) as { StatusCode: number };
    return { code: StatusCode, output: await text(output) };
  } finally {
    await container.remove({ force: true });
  }
}

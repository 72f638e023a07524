import { spawnSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import {
  appendFileSync,
  chmodSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import t from 'tap';
import { KitError } from '../../conformance/errors.js';
import { defineTarget, loadTarget } from '../../conformance/target-file/load.js';
import { TestWorkspace } from '../fixtures/kit.js';
import { noteMadeHere } from '../host/made-here.js';
import { seeded } from '../host/random.js';
import { type ManifestParts, openBundle, originOf, writeBundle } from './bundle.js';
import { packImage, unpackImage } from './extents.js';
import { BUNDLE_VERSION, type Manifest } from './manifest.js';
import { seal } from './seal.js';
import { describeTarget, resolveTarget } from './target.js';

const CASE: ManifestParts['case'] = {
  kind: 'gate',
  runtime: 'process',
  power: 'blocklog',
  filesystem: { type: 'ext4', mountOptions: '' },
  schedule: {
    seed: 7,
    injections: [
      { fault: 'kill', afterConfirms: 3, maxWaitMs: 100, number: 4, aim: { calls: 'sync', position: 2 } },
    ],
    disk: 'any',
    producers: 2,
    depth: 1,
  },
  round: 1,
};

function partsOf(place: TestWorkspace, program = 'server.py'): ManifestParts {
  const target = defineTarget(
    {
      name: 'mine',
      protocol: 'http',
      services: { server: { command: ['{node}', `{dir}/${program}`, '{data}', '{port}'] } },
      guarantee: { faults: ['kill'], duplicatesPerCrash: 0 },
    },
    place.dir,
  );
  const words = { seed: 7, requirements: ['PP-1'], why: 'PP-1: lost', summary: ['gone'] };
  return { ...words, target: describeTarget(target), case: CASE };
}

/** Makes a bundle of a little evidence, with a disk image that is mostly empty. */
async function made(t: {
  teardown(remove: () => void): void;
}): Promise<{ place: TestWorkspace; file: string }> {
  const place = new TestWorkspace();
  t.teardown(() => place.remove());
  const evidence = join(place.dir, 'evidence');
  mkdirSync(join(evidence, 'round-1', 'logs'), { recursive: true });
  mkdirSync(join(evidence, 'round-1', 'scratch'));
  writeFileSync(join(evidence, 'history.jsonl'), '{"kind":"drained"}\n');
  writeFileSync(join(evidence, 'round-1', 'logs', 'server.log'), 'ready\n');
  writeFileSync(join(evidence, 'round-1', 'scratch', 'rest'), 'no evidence\n');
  writeFileSync(join(evidence, 'round-1', 'disk.img'), 'end');
  truncateSync(join(evidence, 'round-1', 'disk.img'), 64 << 20);
  // A run in the lab VM saves the data of its last round as an archive, and this is evidence.
  writeFileSync(join(evidence, 'round-1/data-at-end.tar.gz'), 'data');
  writeFileSync(join(evidence, 'bundle.tar.gz'), 'an earlier bundle');
  writeFileSync(join(place.dir, 'server.py'), '');
  const file = join(place.dir, 'a.tar.gz');
  await writeBundle(file, evidence, partsOf(place));
  return { place, file };
}

/** The part of a test that `openElsewhere` needs. */
interface Test {
  equal(found: unknown, wanted: unknown): boolean;
}

function withLimits(t: { teardown(undo: () => void): void }, text: string): void {
  process.env.PLUGPULL_LIMITS = text;
  t.teardown(() => {
    delete process.env.PLUGPULL_LIMITS;
  });
}

const refused = (code: string, message: RegExp) => (error: unknown) =>
  error instanceof KitError && error.code === code && error.exitCode === 2 && message.test(error.message);

t.test('a bundle returns what was packed, and holes of disk images take no space in it', async (t) => {
  const { place, file } = await made(t);
  t.ok(readFileSync(file).length < 10_000, 'the bundle is small');
  const dir = join(place.dir, 'open');
  const { manifest } = await openBundle(file, dir);
  t.match(manifest, {
    format: 'plugpull-bundle',
    version: BUNDLE_VERSION,
    seed: 7,
    case: CASE,
    omittedFiles: [],
  });
  t.equal(readFileSync(join(dir, 'history.jsonl'), 'utf8'), '{"kind":"drained"}\n');
  t.equal(readFileSync(join(dir, 'round-1/logs/server.log'), 'utf8'), 'ready\n');
  const image = readFileSync(join(dir, 'round-1/disk.img'));
  t.equal(image.length, 64 << 20);
  t.equal(image.toString('latin1', 0, 4), 'end\0');
  t.throws(() => readFileSync(join(dir, 'round-1/scratch/rest')), 'scratch files are not packed');
  t.equal(readFileSync(join(dir, 'round-1/data-at-end.tar.gz'), 'utf8'), 'data');
  t.throws(() => readFileSync(join(dir, 'bundle.tar.gz')), 'bundles are not packed');
});

/** Packs files as another program than the kit would, and seals the archive. */
function packed(place: TestWorkspace, dir: string, names: readonly string[]): string {
  const file = join(place.dir, 'strange.tar.gz');
  const { status, stderr } = spawnSync('tar', ['-C', dir, '-czf', file, ...names], { encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
  seal(file);
  return file;
}

t.test('what is unpacked has no special bits, and other users may not enter its directory', async (t) => {
  const { place, file } = await made(t);
  const evidence = join(place.dir, 'open');
  await openBundle(file, evidence);
  const program = join(evidence, 'program');
  writeFileSync(program, '');
  chmodSync(program, 0o6777);
  mkdirSync(join(evidence, 'folder'));
  chmodSync(join(evidence, 'folder'), 0o1777);
  const dir = join(place.dir, 'again');
  await openBundle(packed(place, evidence, ['bundle.json', 'program', 'folder']), dir);
  const modeOf = (name: string) => statSync(join(dir, name)).mode & 0o7777;
  t.equal(modeOf('program'), 0o755);
  t.equal(modeOf('folder'), 0o700);
  t.equal(modeOf('.'), 0o700);
});

t.test('a bundle with a link, or with mount options that give rights, is refused in one line', async (t) => {
  const { place, file } = await made(t);
  const evidence = join(place.dir, 'open');
  await openBundle(file, evidence);
  symlinkSync('/etc/passwd', join(evidence, 'link'));
  linkSync(join(evidence, 'bundle.json'), join(evidence, 'other'));
  const never = join(place.dir, 'never');
  for (const [names, what] of [
    [['bundle.json', 'link'], /link is an entry of the type SymbolicLink/],
    [['bundle.json', 'other'], /other is an entry of the type Link/],
  ] as const)
    await t.rejects(openBundle(packed(place, evidence, names), never), { code: 'bad-bundle', message: what });
  const manifest = JSON.parse(readFileSync(join(evidence, 'bundle.json'), 'utf8')) as Manifest;
  for (const mountOptions of ['suid,dev', 'errors=panic', 'loop=/dev/sda', 'commit=1 -o suid']) {
    const filesystem = { type: 'ext4', mountOptions };
    writeFileSync(
      join(evidence, 'bundle.json'),
      JSON.stringify({ ...manifest, case: { ...manifest.case, filesystem } }),
    );
    const message = /bundle\.json: case\.filesystem\.mountOptions: expected .*; got "/;
    await t.rejects(openBundle(packed(place, evidence, ['bundle.json']), never), {
      code: 'bad-bundle',
      message,
    });
  }
});

t.test('a changed byte at any offset and a missing end are noticed', async (t) => {
  const { place, file } = await made(t);
  const bytes = readFileSync(file);
  const wrong = join(place.dir, 'wrong.tar.gz');
  const random = seeded(1);
  const places = [3, 4, 8, 9, bytes.length - 1, bytes.length - 20, bytes.length - 84, bytes.length - 85];
  for (let n = 0; n < 40; n++) places.push(random.int(bytes.length));
  for (const at of places) {
    const changed = Buffer.from(bytes);
    changed[at] = (changed[at] ?? 0) ^ (1 << random.int(8));
    writeFileSync(wrong, changed);
    await openBundle(wrong, join(place.dir, 'never')).then(
      () => t.fail(`byte ${at}`),
      (error) => t.ok(refused('bad-bundle', /^\S+wrong\.tar\.gz: /)(error), `byte ${at}: ${error}`),
    );
  }
  writeFileSync(wrong, bytes.subarray(0, bytes.length - 100));
  await t.rejects(openBundle(wrong, join(place.dir, 'never')), { message: /expected the seal/ });
});

t.test('a file that is not a bundle or has another version is reported in one line', async (t) => {
  const { place } = await made(t);
  const open = (file: string) => openBundle(file, join(place.dir, 'never'));
  const file = join(place.dir, 'other.tar.gz');
  await t.rejects(open(join(place.dir, 'nothing')), { message: /there is no such file/ });
  symlinkSync('round', join(place.dir, 'round'));
  await t.rejects(open(join(place.dir, 'round')), { code: 'bad-bundle', message: /ELOOP/ });
  writeFileSync(file, 'a text that is long enough to be a bundle, but is none'.repeat(9));
  await t.rejects(open(file), { message: /expected a bundle of plugpull, which is a \.tar\.gz file/ });
  writeFileSync(file, gzipSync(Buffer.alloc(100_000, 'some archive')));
  await t.rejects(open(file), { message: /expected the seal/ });
  writeFileSync(file, gzipSync('not a tar'));
  seal(file);
  await t.rejects(open(file), { code: 'bad-bundle', message: /other\.tar\.gz: / });
  for (const version of [BUNDLE_VERSION - 1, BUNDLE_VERSION + 1]) {
    await writeBundle(file, join(place.dir, 'evidence'), { ...partsOf(place), version } as ManifestParts);
    const message = new RegExp(`has version ${version} of the format, expected ${BUNDLE_VERSION}`);
    await t.rejects(open(file), { exitCode: 2, message });
  }
});

t.test('a full disk is reported as a failure of the kit, not as a bad bundle', async (t) => {
  const { place } = await made(t);
  const evidence = join(place.dir, 'evidence');
  writeFileSync(join(evidence, 'large'), randomBytes(1 << 20));
  const file = join(place.dir, 'large.tar.gz');
  await writeBundle(file, evidence, partsOf(place));
  const small = join(place.dir, 'small');
  mkdirSync(small);
  if (spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=256k', 'plugpull-test', small]).status !== 0) {
    t.comment('mounting is not allowed here');
    return;
  }
  try {
    await t.rejects(openBundle(file, small), { code: 'kit-failed', message: /small: no room.*ENOSPC/ });
  } finally {
    spawnSync('umount', ['-l', small]);
  }
});

t.test('a target that is not installed is reported with what is missing and what to do', async (t) => {
  const { place, file } = await made(t);
  const { manifest } = await openBundle(file, join(place.dir, 'open'));
  t.equal(resolveTarget(manifest, undefined).dir, place.dir);
  const moved = { ...manifest, target: { ...manifest.target, dir: '/nowhere' } };
  t.throws(() => resolveTarget(moved, undefined), {
    code: 'bad-target',
    exitCode: 2,
    message: /^the target mine is not installed here: expected \/nowhere\/server\.py; .*--target FILE$/,
  });
  t.equal(
    resolveTarget(moved, place.queue('')).name,
    'test',
    'the file of --target replaces the target of the bundle',
  );
});

t.test('a program that the target names by its absolute path is required too', async (t) => {
  const place = new TestWorkspace();
  t.teardown(() => place.remove());
  const script = join(place.dir, 'server.py');
  writeFileSync(script, '');
  const command = ['{node}', script, '{data}', '{port}', '/no/such/file', '{dir}/none'];
  const target = describeTarget(loadTarget(place.target(command)));
  t.same(target.requiredFiles, [script], 'a path that is missing where the bundle is made is not required');
  const manifest = { target } as Manifest;
  t.equal(resolveTarget(manifest, undefined).dir, place.dir);
  rmSync(script);
  t.throws(() => resolveTarget(manifest, undefined), {
    exitCode: 2,
    message: /is not installed here: expected \S+server\.py;/,
  });
});

t.test('replay reports each bad bundle and missing target in one line, with exit code 2', async (t) => {
  const { place, file } = await made(t);
  const replay = async (name: string, message: RegExp) => {
    const { code, stdout, stderr } = await place.run(['replay', name]);
    t.equal(code, 2, `${name}: ${stderr}`);
    t.equal(stdout, '');
    const [last = '', ...told] = stderr.trimEnd().split('\n').reverse();
    t.match(last, message);
    // When the bundle can be opened, replay first prints what it contains.
    t.notOk(
      told.some((line) => line.startsWith('plugpull: ') || line.startsWith('    at ')),
      stderr,
    );
  };
  const other = join(place.dir, 'other.tar.gz');
  await replay(
    join(place.dir, 'nothing'),
    /^plugpull: \S+nothing: expected a bundle, there is no such file$/,
  );
  writeFileSync(other, 'a text');
  await replay(
    other,
    /^plugpull: \S+other\.tar\.gz: expected a bundle of plugpull, which is a \.tar\.gz file$/,
  );
  const earlier = { ...partsOf(place), version: 1 } as unknown as ManifestParts;
  await writeBundle(other, join(place.dir, 'evidence'), earlier);
  await replay(other, /^plugpull: \S+: has version 1 of the format, expected 2: use the kit that made it$/);
  const parts = partsOf(place);
  const restore = { restore: ['plugpull-no-such-program'] };
  const definition = { ...parts.target.definition, crashStates: restore };
  await writeBundle(other, join(place.dir, 'evidence'), {
    ...parts,
    target: { ...parts.target, definition },
  });
  await replay(
    other,
    /^plugpull: the target mine is not installed here: expected plugpull-no-such-program; .*--target FILE$/,
  );
  rmSync(join(place.dir, 'server.py'));
  await replay(
    file,
    /^plugpull: the target mine is not installed here: expected \S+\/server\.py; .*--target FILE$/,
  );
});

t.test('a bundle that was not made here runs nothing without --trust, and shows its commands', async (t) => {
  const place = new TestWorkspace();
  t.teardown(() => place.remove());
  const evidence = join(place.dir, 'evidence');
  mkdirSync(evidence);
  const ran = join(place.dir, 'ran');
  const parts = partsOf(place);
  writeFileSync(join(place.dir, 'server.py'), '');
  const services = { server: { command: ['sh', '-c', `id >> ${ran}`, '{port}'] } };
  const evil = {
    ...parts,
    target: { ...parts.target, definition: { ...parts.target.definition, services } },
  };
  const file = join(place.dir, 'evil.tar.gz');
  await writeBundle(file, evidence, evil, 'foreign');
  const told = await place.run(['replay', file, '--json', '--budget', '1s', '--runs', '1']);
  t.equal(told.code, 2);
  t.match(told.stderr, `services.server: sh -c 'id >> ${ran}' '{port}'`);
  t.match(told.stderr, /^recorded:\nmine: PP-1: lost\ngone\nschedule: /, 'it explains');
  const last = told.stderr.trim().split('\n').at(-1);
  t.match(
    last,
    /^plugpull: \S+evil\.tar\.gz: it was not made on this machine by this user, so nothing was run: expected --trust .* --target FILE/,
  );
  t.match(JSON.parse(told.stdout), {
    madeHere: false,
    trusted: false,
    commands: [{ key: 'services.server' }],
  });
  t.notOk(existsSync(ran), 'nothing was run');
  const shell = await place.run(['replay', file, '--shell']);
  t.match(shell, { code: 2, stderr: /expected --trust/ });

  const trusted = await place.run(['replay', file, '--trust', '--budget', '1s', '--runs', '1']);
  t.match(
    trusted.stderr,
    /services\.server: sh -c 'id >> [^\n]*\n[\s\S]*exited/,
    'first the commands, then the run',
  );
  t.ok(existsSync(ran), 'the command was run');
  rmSync(ran);

  // The same bytes, noted as those of an own run. A bundle that is made from a foreign one is foreign too.
  const opened = await openBundle(file, join(place.dir, 'open'));
  t.equal(originOf(opened), 'foreign');
  noteMadeHere(opened.sha256, file);
  t.equal(originOf(opened), 'own-run');
  const own = await place.run(['replay', file, '--budget', '1s', '--runs', '1']);
  t.notMatch(own.stderr, /commands in this bundle/);
  t.ok(existsSync(ran));
});

t.test('the target of a bundle passes the checks of a target file', async (t) => {
  const { place, file } = await made(t);
  const { manifest } = await openBundle(file, join(place.dir, 'open'));
  const { definition } = manifest.target;
  const wrong = (change: object) => ({
    ...manifest,
    target: { ...manifest.target, definition: { ...definition, ...change } },
  });
  const guarantee = { ...definition.guarantee, faults: ['index-loss' as const] };
  const cases: [object, RegExp][] = [
    [{ guarantee }, /^target mine: guarantee\.faults\.0: index-loss damages/],
    [{ install: ['{nonsense}'] }, /^target mine: install\.0: .*nonsense/],
  ];
  for (const [change, message] of cases)
    t.throws(() => resolveTarget(wrong(change), undefined), { code: 'bad-target', exitCode: 2, message });
});

t.test('a bundle that cannot be noted as made here is written nevertheless', async (t) => {
  const { place } = await made(t);
  writeFileSync(join(place.dir, 'no-directory'), '');
  process.env.XDG_STATE_HOME = join(place.dir, 'no-directory');
  const lines: string[] = [];
  const stderr = t.capture(process.stderr, 'write', (line: string) => Boolean(lines.push(line)));
  const file = join(place.dir, 'b.tar.gz');
  await writeBundle(file, join(place.dir, 'evidence'), partsOf(place)).finally(() => stderr.restore());
  t.ok(existsSync(file));
  t.match(lines, [/^warning: \S+b\.tar\.gz is not noted as made here, so its replay needs --trust: ENOTDIR/]);
});

t.test('every image is restored from its extents, byte for byte', async (t) => {
  const place = new TestWorkspace();
  t.teardown(() => place.remove());
  const random = seeded(2);
  for (const sizeBytes of [0, 1, 4096, 5000, 9 << 20]) {
    const bytes = Buffer.alloc(sizeBytes);
    for (let n = 0; n < 20 && sizeBytes > 0; n++) {
      const at = random.int(sizeBytes);
      bytes.fill(1 + random.int(255), at, Math.min(sizeBytes, at + random.int(9000)));
    }
    const [image, packed, back] = ['image', 'packed', 'back'].map((name) =>
      join(place.dir, `${name}-${sizeBytes}`),
    );
    writeFileSync(image ?? '', bytes);
    await packImage(image ?? '', packed ?? '');
    unpackImage(packed ?? '', back ?? '');
    t.ok(readFileSync(back ?? '').equals(bytes), `${sizeBytes} bytes`);
    writeFileSync(packed ?? '', 'PPOTHER');
    t.throws(() => unpackImage(packed ?? '', back ?? ''), { code: 'bad-bundle' });
  }
});

t.test('a bundle that unpacks to more than the limits allow is refused before it is written', async (t) => {
  const { place, file } = await made(t);
  t.teardown(() => {
    delete process.env.PLUGPULL_LIMITS;
  });
  const cases: [limits: string, message: RegExp][] = [
    [
      'bundle-entries=2',
      /cannot be unpacked: it has more than 2 files \(PLUGPULL_LIMITS=bundle-entries=N allows more\)$/,
    ],
    ['bundle-entry-bytes=100', /cannot be unpacked: bundle.json has more than 100 bytes/],
    ['bundle-bytes=3000', /cannot be unpacked: it unpacks to more than 3000 bytes/],
    ['image-bytes=1000', /disk.img.extents: its image has more than 1000 bytes/],
    ['json-values=5', /expected bundle.json in it: it has more than 5 values/],
  ];
  for (const [limits, message] of cases) {
    process.env.PLUGPULL_LIMITS = limits;
    await t.rejects(
      openBundle(file, join(place.dir, limits)),
      { code: 'bad-bundle', exitCode: 2, message },
      limits,
    );
  }
});

t.test('a small bundle of a stranger that unpacks to much is refused, and takes no room', async (t) => {
  const { place, file } = await made(t);
  const evidence = join(place.dir, 'open');
  await openBundle(file, evidence);
  writeFileSync(join(evidence, 'zeros'), '');
  truncateSync(join(evidence, 'zeros'), 300 << 20);
  const bomb = packed(place, evidence, ['bundle.json', 'zeros']);
  const dir = join(place.dir, 'bomb');
  await t.rejects(openBundle(bomb, dir), {
    code: 'bad-bundle',
    exitCode: 2,
    message: /it unpacks to more than 100 times its size/,
  });
  t.throws(() => statSync(join(dir, 'zeros')), { code: 'ENOENT' });
  withLimits(t, 'bundle-ratio=2000');
  await openBundle(bomb, dir);
  t.equal(statSync(join(dir, 'zeros')).size, 300 << 20, 'the limit can be raised');
  delete process.env.PLUGPULL_LIMITS;
  noteMadeHere(createHash('sha256').update(readFileSync(bomb)).digest('hex'), bomb);
  const own = join(place.dir, 'own');
  await openBundle(bomb, own);
  t.equal(statSync(join(own, 'zeros')).size, 300 << 20, 'it does not hold for a bundle that was made here');
});

/** Opens a bundle as a user does who has not made it. */
async function openElsewhere(t: Test, file: string, dir: string): Promise<Manifest> {
  const before = process.env.XDG_STATE_HOME;
  const elsewhere = mkdtempSync(join(tmpdir(), 'plugpull-elsewhere-'));
  process.env.XDG_STATE_HOME = elsewhere;
  try {
    const bundle = await openBundle(file, dir);
    t.equal(originOf(bundle), 'foreign');
    return bundle.manifest;
  } finally {
    if (before === undefined) delete process.env.XDG_STATE_HOME;
    else process.env.XDG_STATE_HOME = before;
    rmSync(elsewhere, { recursive: true });
  }
}

t.test(
  'a data directory with a file of 300 MiB zeros is packed, opened anywhere, and is the same',
  async (t) => {
    const { place } = await made(t);
    const evidence = join(place.dir, 'evidence');
    const data = join(evidence, 'round-1', 'data-at-end');
    mkdirSync(data);
    const zeros = join(data, 'segment');
    writeFileSync(zeros, 'begin');
    truncateSync(zeros, 300 << 20);
    appendFileSync(zeros, 'end');
    chmodSync(zeros, 0o640);
    writeFileSync(join(data, 'program'), randomBytes(100_000));
    chmodSync(join(data, 'program'), 0o755);
    // The names that the kit gives to packed files, but as files of the target. They are no extents.
    for (const name of ['segment.extents', 'segment.extents.extents', '.extents'])
      writeFileSync(join(data, name), `of the target: ${name}`);
    linkSync(join(data, 'program'), join(data, 'same'));
    // Evidence is mostly below the working directory, and only there the archiver would make links.
    const before = process.cwd();
    process.chdir(place.dir);
    t.teardown(() => process.chdir(before));
    const file = join(place.dir, 'b.tar.gz');
    await writeBundle(file, evidence, partsOf(place));
    t.ok(statSync(file).size < 1 << 20, 'it is small');
    t.notOk(readdirSync(evidence).some((name) => name.startsWith('.packing')));
    const dir = join(place.dir, 'opened');
    const manifest = await openElsewhere(t, file, dir);
    t.same(manifest.omittedFiles, []);
    const opened = join(dir, 'round-1', 'data-at-end');
    t.same(readdirSync(opened).sort(), readdirSync(data).sort());
    for (const name of readdirSync(data)) {
      t.ok(readFileSync(join(opened, name)).equals(readFileSync(join(data, name))), name);
      t.equal(statSync(join(opened, name)).mode, statSync(join(data, name)).mode, name);
    }
    t.ok(statSync(join(opened, 'segment')).blocks * 512 < 1 << 20, 'the zeros take no room on the disk');
  },
);

t.test(
  'what the limits of a bundle do not allow is left out, so that every bundle can be opened',
  async (t) => {
    const { place } = await made(t);
    const evidence = join(place.dir, 'evidence');
    const data = join(evidence, 'round-1', 'data');
    mkdirSync(data);
    for (let n = 0; n < 30; n++) writeFileSync(join(data, `${n}`), randomBytes(10_000 + n));
    writeFileSync(join(evidence, 'round-1', 'other.img'), randomBytes(50_000));
    const open = async (limits: string) => {
      withLimits(t, limits);
      const file = join(place.dir, `${limits}.tar.gz`);
      await writeBundle(file, evidence, partsOf(place));
      const dir = join(place.dir, limits);
      const { omittedFiles } = await openElsewhere(t, file, dir);
      t.ok(existsSync(join(dir, 'history.jsonl')), 'what a replay needs is there');
      for (const name of omittedFiles) t.notOk(existsSync(join(dir, name)), name);
      return omittedFiles;
    };
    const names = (from: number, to: number) =>
      Array.from({ length: to - from }, (_, n) => `round-1/data/${from + n}`);
    t.same(await open('bundle-entries=26'), names(20, 30), 'number of files');
    t.same(await open('bundle-entry-bytes=40000'), ['round-1/other.img'], 'one file');
    t.same(await open('bundle-bytes=200000'), names(13, 30), 'all files');
    t.same(await open('image-bytes=1000000'), ['round-1/disk.img'], 'the size of an image');
    for (let n = 0; n < 1200; n++) writeFileSync(join(data, `many-${n}`), '');
    const many = await open('bundle-entries=10');
    t.equal(many.length, 1001);
    t.match(many.at(-1), /^and \d+ more files$/);
    withLimits(t, 'bundle-entry-bytes=100');
    await t.rejects(writeBundle(join(place.dir, 'never'), evidence, partsOf(place)), {
      code: 'bad-usage',
      message: /never.part: bundle.json has more than 100 bytes/,
    });
  },
);

t.test(
  'a bundle is never much smaller than what it unpacks to: the largest files are left out',
  async (t) => {
    const { place } = await made(t);
    const evidence = join(place.dir, 'evidence');
    for (const [name, mebibytes] of [
      ['small.log', 100],
      ['large.log', 200],
    ] as const)
      writeFileSync(
        join(evidence, 'round-1', 'logs', name),
        Buffer.alloc(mebibytes << 20, 'the same line\n'),
      );
    const file = join(place.dir, 'b.tar.gz');
    await writeBundle(file, evidence, partsOf(place));
    const dir = join(place.dir, 'opened');
    const { omittedFiles } = await openElsewhere(t, file, dir);
    t.same(omittedFiles, ['round-1/logs/large.log']);
    t.equal(statSync(join(dir, 'round-1/logs/small.log')).size, 100 << 20);
  },
);

t.test('extents that claim an impossible image are refused', async (t) => {
  const place = new TestWorkspace();
  t.teardown(() => place.remove());
  const packed = join(place.dir, 'packed');
  const head = Buffer.from('PPEXTENT00000000');
  for (const sizeBytes of [2n ** 62n, 2n ** 64n - 1n]) {
    head.writeBigUInt64LE(sizeBytes, 8);
    writeFileSync(packed, head);
    const message = /its image has more than 68719476736 bytes/;
    t.throws(() => unpackImage(packed, join(place.dir, 'image')), { code: 'bad-bundle', message });
  }
});

t.test('a file that is too large for a bundle is left out, and the manifest names it', async (t) => {
  const { place } = await made(t);
  process.env.PLUGPULL_LIMITS = 'bundle-entry-bytes=10000';
  t.teardown(() => {
    delete process.env.PLUGPULL_LIMITS;
  });
  writeFileSync(join(place.dir, 'evidence', 'large'), Buffer.alloc(10_001, 1));
  const file = join(place.dir, 'b.tar.gz');
  await writeBundle(file, join(place.dir, 'evidence'), partsOf(place));
  t.same((await openBundle(file, join(place.dir, 'b'))).manifest.omittedFiles, ['large']);
});

import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import t from 'tap';
import { KitError } from '../../conformance/errors.js';
import { defineTarget, loadTarget } from '../../conformance/target-file/load.js';
import { TestWorkspace } from '../fixtures/kit.js';
import { seeded } from '../host/random.js';
import { type ManifestParts, openBundle, writeBundle } from './bundle.js';
import { packImage, unpackImage } from './extents.js';
import type { Manifest } from './manifest.js';
import { seal } from './seal.js';
import { describeTarget, resolveTarget } from './target.js';

const CASE: ManifestParts['case'] = {
  kind: 'gate',
  runtime: 'process',
  power: 'blocklog',
  filesystem: { type: 'ext4', mountOptions: '' },
  schedule: {
    seed: 7,
    injections: [{ fault: 'kill', afterConfirms: 3, atMostMs: 100, number: 4 }],
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
  const words = { seed: 7, requirements: ['PP-1'], why: 'PP-1: lost', story: ['gone'] };
  return { ...words, target: describeTarget(target), case: CASE };
}

/** A bundle of a little evidence, with a disk of which most is empty. */
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
  writeFileSync(join(place.dir, 'server.py'), '');
  const file = join(place.dir, 'a.tar.gz');
  await writeBundle(file, evidence, partsOf(place));
  return { place, file };
}

const refused = (code: string, message: RegExp) => (error: unknown) =>
  error instanceof KitError && error.code === code && error.exitCode === 2 && message.test(error.message);

t.test('a bundle gives back what was put in, and holes of disks take no room in it', async (t) => {
  const { place, file } = await made(t);
  t.ok(readFileSync(file).length < 10_000, 'small');
  const dir = join(place.dir, 'open');
  const { manifest } = await openBundle(file, dir);
  t.match(manifest, { format: 'plugpull-bundle', version: 1, seed: 7, case: CASE, leftOut: [] });
  t.equal(readFileSync(join(dir, 'history.jsonl'), 'utf8'), '{"kind":"drained"}\n');
  t.equal(readFileSync(join(dir, 'round-1/logs/server.log'), 'utf8'), 'ready\n');
  const image = readFileSync(join(dir, 'round-1/disk.img'));
  t.equal(image.length, 64 << 20);
  t.equal(image.toString('latin1', 0, 4), 'end\0');
  t.throws(() => readFileSync(join(dir, 'round-1/scratch/rest')), 'scratch is no evidence');
});

t.test('a changed byte is noticed wherever it is, and so is a missing end', async (t) => {
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

t.test('what is no bundle, or one of another version, is told so in one line', async (t) => {
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
  const later = { ...partsOf(place), version: 2 } as unknown as ManifestParts;
  await writeBundle(file, join(place.dir, 'evidence'), later);
  await t.rejects(open(file), { exitCode: 2, message: /has version 2 of the format, expected 1/ });
});

t.test('where there is no room for a bundle that is no fault of the bundle', async (t) => {
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

t.test('a target that is not installed is named, with what is missing and the way out', async (t) => {
  const { place, file } = await made(t);
  const { manifest } = await openBundle(file, join(place.dir, 'open'));
  t.equal(resolveTarget(manifest, undefined).dir, place.dir);
  const moved = { ...manifest, target: { ...manifest.target, dir: '/nowhere' } };
  t.throws(() => resolveTarget(moved, undefined), {
    code: 'bad-target',
    exitCode: 2,
    message: /^the target mine is not installed here: expected \/nowhere\/server\.py; .*--target FILE$/,
  });
  t.equal(resolveTarget(moved, place.queue('')).name, 'test', 'it is where --target says');
});

t.test('a program that the target names by its full path is needed, too', async (t) => {
  const place = new TestWorkspace();
  t.teardown(() => place.remove());
  const script = join(place.dir, 'server.py');
  writeFileSync(script, '');
  const command = ['{node}', script, '{data}', '{port}', '/no/such/file', '{dir}/none'];
  const target = describeTarget(loadTarget(place.target(command)));
  t.same(target.needs, [script], 'not what is not there either where the bundle is made');
  const manifest = { target } as Manifest;
  t.equal(resolveTarget(manifest, undefined).dir, place.dir);
  rmSync(script);
  t.throws(() => resolveTarget(manifest, undefined), {
    exitCode: 2,
    message: /is not installed here: expected \S+server\.py;/,
  });
});

t.test('replay says each of these in one line, with exit code 2', async (t) => {
  const { place, file } = await made(t);
  const replay = async (name: string, message: RegExp) => {
    const { code, stdout, stderr } = await place.run(['replay', name]);
    t.equal(code, 2, `${name}: ${stderr}`);
    t.equal(stdout, '');
    const [last = '', ...told] = stderr.trimEnd().split('\n').reverse();
    t.match(last, message);
    // A bundle that was opened first says what it is.
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
  const later = { ...partsOf(place), version: 2 } as unknown as ManifestParts;
  await writeBundle(other, join(place.dir, 'evidence'), later);
  await replay(other, /^plugpull: \S+: has version 2 of the format, expected 1: use the kit that made it$/);
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

t.test('any image comes back from its extents, byte for byte', async (t) => {
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
    packImage(image ?? '', packed ?? '');
    unpackImage(packed ?? '', back ?? '');
    t.ok(readFileSync(back ?? '').equals(bytes), `${sizeBytes} bytes`);
    writeFileSync(packed ?? '', 'PPOTHER');
    t.throws(() => unpackImage(packed ?? '', back ?? ''), { code: 'bad-bundle' });
  }
});

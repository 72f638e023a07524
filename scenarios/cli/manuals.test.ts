import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { basename, dirname, join, relative } from 'node:path';
import t from 'tap';
import { parse } from 'yaml';
import { packageRoot } from '../host/version.js';

const MAX_README_BYTES = 9216;
const MANUAL_NAMES = new Set(['README.md', 'CHANGELOG.md', 'FINDINGS.md', 'FIX-IT.md', 'SPEC.md']);
const SOURCE_FOLDERS = ['reference-impl', 'conformance', 'faults', 'scenarios', 'docker'];

const root = packageRoot();

/** Paths of all files in the source folders, relative to the root. */
const sourceFiles = SOURCE_FOLDERS.flatMap((folder) =>
  readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' }).map((name) => join(folder, name)),
);
const sourceNames = new Set(sourceFiles.map((file) => basename(file)));

interface Manual {
  /** Path, relative to the root. */
  file: string;
  text: string;
}

const manuals: Manual[] = [...readdirSync(root), ...sourceFiles]
  .filter((file) => MANUAL_NAMES.has(basename(file)))
  .map((file) => ({ file, text: readFileSync(join(root, file), 'utf8') }));

/** Returns the anchors of a manual's headings, as GitHub makes them. */
function anchorsOf(text: string): Set<string> {
  const headings = text.replaceAll(/^```[\s\S]*?^```/gm, '').match(/^#{1,6} .+$/gm) ?? [];
  return new Set(
    headings.map((heading) =>
      heading
        .replace(/^#+ /, '')
        .toLowerCase()
        .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
        .replaceAll(' ', '-'),
    ),
  );
}

/** Returns the first group of every match, with the manual that contains it. */
function* matchesIn(pattern: RegExp): Generator<{ manual: Manual; reference: string }> {
  for (const manual of manuals)
    for (const match of manual.text.matchAll(pattern)) yield { manual, reference: match[1] ?? '' };
}

t.test('README.md is short', async (t) => {
  const { size: sizeBytes } = statSync(join(root, 'README.md'));
  t.ok(sizeBytes <= MAX_README_BYTES, `${sizeBytes} bytes, at most ${MAX_README_BYTES}`);
});

t.test('each source folder has a manual, to which README.md links', async (t) => {
  const readme = readFileSync(join(root, 'README.md'), 'utf8');
  for (const folder of SOURCE_FOLDERS) t.ok(readme.includes(`](${folder}/README.md)`), folder);
});

t.test('every relative link of a manual leads to a file, and its anchor to a heading', async (t) => {
  let links = 0;
  for (const { manual, reference } of matchesIn(/\]\((?!https?:)([^)\s]+)\)/g)) {
    links++;
    const [path = '', anchor] = reference.split('#');
    const file = path === '' ? manual.file : relative(root, join(root, dirname(manual.file), path));
    const where = `${manual.file}: ${reference}`;
    t.ok(existsSync(join(root, file)), where);
    if (anchor === undefined || !existsSync(join(root, file))) continue;
    t.ok(anchorsOf(readFileSync(join(root, file), 'utf8')).has(anchor), `${where} is a heading`);
  }
  t.ok(links > 50, `${links} links`);
});

t.test('every compiled file that a manual names has a source', async (t) => {
  let files = 0;
  for (const { manual, reference } of matchesIn(/\bdist\/([\w./-]+)\.js\b/g)) {
    files++;
    t.ok(existsSync(join(root, `${reference}.ts`)), `${manual.file}: dist/${reference}.js`);
  }
  t.ok(files > 10, `${files} files`);
});

t.test('every source file that a manual names exists', async (t) => {
  for (const { manual, reference } of matchesIn(/(?<![\w./*-])([\w./-]+\.ts)\b/g)) {
    const candidates = [join(root, reference), join(root, dirname(manual.file), reference)];
    const exists = reference.includes('/')
      ? candidates.some((path) => existsSync(path))
      : sourceNames.has(reference);
    t.ok(exists, `${manual.file}: ${reference}`);
  }
});

t.test('every npm script that a manual names exists', async (t) => {
  const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    scripts: Record<string, string>;
  };
  for (const { manual, reference } of matchesIn(/\bnpm run (?:--silent )?([\w:-]*\w)/g))
    t.ok(reference in scripts, `${manual.file}: npm run ${reference}`);
});

t.test('every YAML and JSON block of a manual that is a whole file can be read', async (t) => {
  let blocks = 0;
  for (const { manual, reference } of matchesIn(/^```yaml\n([\s\S]*?)^```$/gm)) {
    blocks++;
    t.ok(parse(reference) !== null, `${manual.file}: ${reference.slice(0, 40)}`);
  }
  for (const { manual, reference } of matchesIn(/^ *```json\n( *\{[\s\S]*?)^ *```$/gm)) {
    blocks++;
    t.doesNotThrow(() => JSON.parse(reference), `${manual.file}: ${reference.slice(0, 40)}`);
  }
  t.ok(blocks >= 4, `${blocks} blocks`);
});

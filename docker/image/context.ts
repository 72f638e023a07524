import { createHash } from 'node:crypto';
import {
  copyFileSync,
  type Dirent,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
} from 'node:fs';
import { dirname, join, sep } from 'node:path';

/** One file of a build context. */
export interface ContextFile {
  source: string;
  /** Path within the context. */
  to: string;
}

/** Packages that the reference implementations import. A test runs the image, so a missing one is noticed. */
const REFERENCE_PACKAGES = ['@node-rs/crc32', 'commander', 'koffi', 'mmap-io', 'zod'];
/** Files that an image does not need: types, source maps and tests. */
const EXCLUDED_FILES = /\.(?:[cm]?ts|map)$|\.test\.js$/;
const EXCLUDED_FOLDERS: ReadonlySet<string> = new Set(['fixtures', 'bench']);
/** Files of packages that an image does not need: texts, and sources and intermediate files of addons. */
const EXCLUDED_PACKAGE_FILES = /\.(?:md|c|cc|cpp|h|hh|hpp|S|asm|o|d|a|mk|gypi?|stamp|Makefile)$/;
/** Folders of packages that an image does not need: intermediate files, sources, addons for another C library. */
const EXCLUDED_PACKAGE_FOLDERS: ReadonlySet<string> = new Set(['.deps', 'obj.target', 'musl_x64', 'vendor']);
/** Folder with the target files of the reference implementations. */
const TARGETS = 'conformance/targets';
const TARGET_FILE = /^[\w-]+\.json$/;
const KIT_FOLDERS = ['conformance', 'docker', 'faults', 'scenarios'];

/**
 * Returns the programs of the reference implementations in a folder, as paths relative to it.
 * @param built folder with compiled implementations: all, or a changed copy of one.
 */
export function referencePrograms(built: string): string[] {
  if (!existsSync(built)) return [];
  return readdirSync(built)
    .sort()
    .map((name) => `${name}/main.js`)
    .filter((program) => existsSync(join(built, program)));
}

/**
 * Returns the files of the image of the reference implementations.
 * @param root folder of the package.
 * @param built folder with the compiled reference implementations: that of `root`, or a changed copy of one.
 * @throws Error when none is compiled.
 */
export function referenceFiles(root: string, built: string): ContextFile[] {
  if (referencePrograms(built).length === 0)
    throw new Error(`${built}: not compiled, expected a package that was built`);
  return [
    ...packageFiles(REFERENCE_PACKAGES, root, 'reference/node_modules'),
    ...folderFiles(built, 'reference/package/dist/reference-impl'),
    { source: join(root, 'package.json'), to: 'reference/package/package.json' },
    ...filesBelow(join(root, TARGETS), `reference/package/${TARGETS}`, (entry) =>
      TARGET_FILE.test(entry.name),
    ),
  ];
}

/** Returns the files of the image of the kit that the image of the reference implementations does not have. */
export function kitFiles(root: string): ContextFile[] {
  const inReference = new Set(installedPackages(REFERENCE_PACKAGES, root).map(({ folder }) => folder));
  const more = installedPackages(dependenciesOf(root), root).filter(({ folder }) => !inReference.has(folder));
  return [
    ...more.flatMap((one) => packageTree(one, 'kit/node_modules')),
    ...KIT_FOLDERS.flatMap((folder) => folderFiles(join(root, 'dist', folder), `kit/package/dist/${folder}`)),
    ...folderFiles(join(root, 'conformance'), 'kit/package/conformance'),
    { source: join(root, 'docker/Dockerfile'), to: 'kit/package/docker/Dockerfile' },
    ...['site', 'lab'].flatMap((folder) =>
      folderFiles(join(root, 'docker', folder), `kit/package/docker/${folder}`),
    ),
  ];
}

/**
 * Returns a digest of the files of a context, with their names and execute permissions, and of `more`; 16 hex
 * digits.
 */
export function digestOf(files: readonly ContextFile[], ...more: readonly string[]): string {
  const hash = createHash('sha256').update(JSON.stringify(more));
  for (const { source, to } of [...files].sort((a, b) => (a.to < b.to ? -1 : 1))) {
    hash.update(`\0${to}\0${statSync(source).mode & 0o111}\0`).update(readFileSync(source));
  }
  return hash.digest('hex').slice(0, 16);
}

/** Copies the files of a context into `folder`. */
export function copyContext(files: readonly ContextFile[], folder: string): void {
  for (const { source, to } of files) {
    const path = join(folder, to);
    mkdirSync(dirname(path), { recursive: true });
    copyFileSync(source, path);
  }
}

function packageFiles(names: readonly string[], root: string, to: string): ContextFile[] {
  return installedPackages(names, root).flatMap((one) => packageTree(one, to));
}

function packageTree({ name, folder }: InstalledPackage, to: string): ContextFile[] {
  const wanted = (entry: Dirent) =>
    entry.isDirectory()
      ? !EXCLUDED_PACKAGE_FOLDERS.has(entry.name)
      : !EXCLUDED_PACKAGE_FILES.test(entry.name) && !EXCLUDED_FILES.test(entry.name);
  return filesBelow(folder, `${to}/${name}`, wanted);
}

function folderFiles(folder: string, to: string): ContextFile[] {
  const wanted = (entry: Dirent) =>
    entry.isDirectory() ? !EXCLUDED_FOLDERS.has(entry.name) : !EXCLUDED_FILES.test(entry.name);
  return filesBelow(folder, to, wanted);
}

function filesBelow(folder: string, to: string, wanted: (entry: Dirent) => boolean): ContextFile[] {
  return readdirSync(folder, { withFileTypes: true })
    .filter(wanted)
    .flatMap((entry): ContextFile[] => {
      const source = join(folder, entry.name);
      if (entry.isDirectory()) return filesBelow(source, `${to}/${entry.name}`, wanted);
      return entry.isFile() ? [{ source, to: `${to}/${entry.name}` }] : [];
    });
}

/** An installed npm package that has to be in an image, with everything in its folder. */
interface InstalledPackage {
  name: string;
  /** Absolute path of the package's folder. */
  folder: string;
}

/** Packages that only compile addons or choose how, and types. An image needs only the compiled files. */
const BUILD_ONLY = /^(?:nan|node-gyp|run-script-os|@types\/.*)$/;

/**
 * Returns the named packages, found in a node_modules folder at or above `from`, and their dependencies.
 * Packages that are not installed (optional binaries for other machines) are left out.
 */
function installedPackages(names: readonly string[], from: string): InstalledPackage[] {
  const found = new Map<string, InstalledPackage>();
  const visit = (name: string, by: string) => {
    if (BUILD_ONLY.test(name)) return;
    const folder = findPackage(name, by);
    if (folder === undefined || found.has(folder)) return;
    found.set(folder, { name, folder });
    for (const needed of dependenciesOf(folder)) visit(needed, folder);
  };
  for (const name of names) visit(name, from);
  // Leave out packages in the node_modules of another one: they are copied with that package.
  const all = [...found.values()];
  const nested = ({ folder }: InstalledPackage) =>
    all.some((other) => folder.startsWith(join(other.folder, 'node_modules') + sep));
  return all.filter((one) => !nested(one));
}

/** Returns the names of the packages that a package needs at run time, as its package.json lists them. */
function dependenciesOf(folder: string): string[] {
  const { dependencies, optionalDependencies } = JSON.parse(
    readFileSync(join(folder, 'package.json'), 'utf8'),
  ) as { dependencies?: Record<string, string>; optionalDependencies?: Record<string, string> };
  return Object.keys({ ...dependencies, ...optionalDependencies });
}

function findPackage(name: string, from: string): string | undefined {
  for (let folder = from; ; folder = dirname(folder)) {
    const candidate = join(folder, 'node_modules', name);
    if (existsSync(join(candidate, 'package.json'))) return candidate;
    if (dirname(folder) === folder) return undefined;
  }
}

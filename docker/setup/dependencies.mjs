// Installs the npm packages of the lock file, unless they are there.
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from './child.mjs';
import { seconds, timeLeft } from './progress.mjs';

/** Packages with a compiled part that must load under this Node. The kit cannot do without them. */
const ADDONS = ['koffi', '@node-rs/crc32'];
/** An optional one: it must load if it is installed. */
const OPTIONAL_ADDON = 'mmap-io';
const COMPILED_PLACES = ['build/Release/mmap-io.node', 'build/Debug/mmap-io.node'];

/**
 * Returns why the installed packages are not those of the lock file; undefined if they are. What npm has installed is in
 * `node_modules/.package-lock.json`, which npm writes at the end of an installation.
 */
export function whyNotInstalled(root) {
  const installed = readPackages(join(root, 'node_modules', '.package-lock.json'));
  if (installed === undefined) return 'node_modules is missing or incomplete';
  const wanted = readPackages(join(root, 'package-lock.json')) ?? {};
  for (const [path, one] of Object.entries(wanted)) {
    if (path === '' || one.link) continue;
    const found = installed[path];
    if (found === undefined) {
      // A package for another machine is not installed.
      if (one.optional || one.devOptional || one.peer) continue;
      return `${path} is missing`;
    }
    if (
      found.version !== one.version ||
      (found.integrity ?? one.integrity) !== (one.integrity ?? found.integrity)
    )
      return `${path} has another version`;
    if (!existsSync(join(root, path, 'package.json'))) return `${path} is missing`;
  }
  const extra = Object.keys(installed).find((path) => !Object.hasOwn(wanted, path));
  return extra === undefined ? undefined : `${extra} is not in package-lock.json`;
}

function readPackages(file) {
  try {
    return JSON.parse(readFileSync(file, 'utf8')).packages ?? {};
  } catch {
    return undefined;
  }
}

/** Returns which compiled package does not load under this Node; undefined if all do. */
async function whyNotLoadable(root) {
  const names = [
    ...ADDONS,
    ...(existsSync(join(root, 'node_modules', OPTIONAL_ADDON)) ? [OPTIONAL_ADDON] : []),
  ];
  for (const name of names) {
    const { ok } = await run(process.execPath, ['-e', `require(${JSON.stringify(name)})`], { cwd: root });
    if (
      !ok &&
      (name !== OPTIONAL_ADDON ||
        COMPILED_PLACES.some((place) => existsSync(join(root, 'node_modules', name, place))))
    )
      return `${name} does not load under Node ${process.versions.node}`;
  }
  return undefined;
}

/** Time without a fetched package after which npm is probably done with fetching. */
const FETCH_PAUSE_MS = 5000;

const onPath = (name) =>
  (process.env.PATH ?? '').split(':').some((folder) => folder !== '' && existsSync(join(folder, name)));

/** File that says for which content the packages were checked. */
const stampIn = (root) => join(root, 'node_modules', '.plugpull-setup');

/** Reports whether the packages were checked, and have not changed since. Loading the compiled ones takes a second. */
function isChecked(root) {
  const wanted = checkedContent(root);
  return wanted !== undefined && readOr(stampIn(root)) === wanted;
}

/** Returns why packages must be installed; undefined if those of the lock file are there and load. It writes nothing. */
export async function whyInstall(root) {
  return isChecked(root) ? undefined : (whyNotInstalled(root) ?? (await whyNotLoadable(root)));
}

/**
 * Installs the packages of the lock file, unless they are installed already, for example by `npm ci`.
 * @param {{ root: string, progress: import('./progress.mjs').Progress, onStart(): void }} context
 * @throws Error with the end of npm's output.
 */
export async function installDependencies({ root, progress, onStart }) {
  if (isChecked(root)) return;
  const why = await whyInstall(root);
  if (why !== undefined) await npmCi({ root, progress, onStart }, why);
  // Make a new file: node_modules may consist of hard links, and other folders share their content.
  const stamp = stampIn(root);
  try {
    rmSync(stamp, { force: true });
    writeFileSync(stamp, checkedContent(root) ?? '');
  } catch (error) {
    // The packages of another user fit. Without the note they are only checked again.
    if (!['EACCES', 'EPERM', 'EROFS'].includes(error.code)) throw error;
  }
}

async function npmCi({ root, progress, onStart }, why) {
  const all = Object.keys(readPackages(join(root, 'package-lock.json')) ?? {}).length - 1;
  const counts = { described: 0, fetched: 0, lastFetchMs: 0 };
  let trouble = '';
  const describe = (elapsedMs) =>
    `npm ci: ${seconds(elapsedMs)}, ${describeFetches(counts, all, elapsedMs)}${trouble}`;
  const onLine = (line) => {
    const [, answer, url] = /npm http (?:fetch|cache) (?:GET )?(\d+ )?(\S+)/.exec(line) ?? [];
    const failed = /npm http fetch .* attempt (\d+) failed with (\S+)/.exec(line);
    if (failed !== null) trouble = `; attempt ${failed[1]} of a package failed with ${failed[2]}`;
    else if (url !== undefined && (answer ?? '200 ').startsWith('200')) {
      // The path of a tarball has a part `/-/`. Other requests are for the description of a package.
      if (url.includes('/-/')) {
        counts.fetched++;
        counts.lastFetchMs = Date.now();
      } else counts.described++;
      trouble = '';
    }
  };
  // Compile the memory-map addon if a compiler exists: otherwise npm looks for a compiled one on the network.
  const compiles = ['g++', 'make', 'python3'].every(onPath);
  const env = { ...(compiles ? { npm_config_build_from_source: 'true' } : {}), npm_config_loglevel: 'http' };
  const { ok, text } = await progress.during(
    `npm ci: ${all} packages of package-lock.json (${why})`,
    describe,
    () => run('npm', ['ci', '--no-progress', '--no-audit', '--no-fund'], { cwd: root, env, onLine, onStart }),
  );
  if (ok) return;
  const lines = text.split('\n').filter((line) => line.trim() !== '' && !/npm http /.test(line));
  throw new Error(`installing the npm packages failed:\n${lines.slice(-15).join('\n')}`);
}

/** Describes how many packages npm has looked up and fetched, and about how long the rest takes. */
function describeFetches({ described, fetched, lastFetchMs }, all, elapsedMs) {
  if (fetched === 0) return `${Math.min(described, all)} of at most ${all} packages looked up`;
  // npm does not fetch packages for other machines, so the count does not show which package is the last one.
  if (fetched >= all || Date.now() - lastFetchMs > FETCH_PAUSE_MS)
    return `${fetched} packages fetched, now unpacking and building them`;
  return `${fetched} of at most ${all} packages fetched${timeLeft(elapsedMs, fetched, all)}`;
}

/** Returns a digest of everything that decides whether the packages fit; undefined if none are installed. */
function checkedContent(root) {
  const installed = readOr(join(root, 'node_modules', '.package-lock.json'));
  if (installed === undefined) return undefined;
  return createHash('sha256')
    .update(readFileSync(join(root, 'package-lock.json')))
    .update(installed)
    .update(process.versions.modules)
    .digest('hex');
}

function readOr(file) {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}

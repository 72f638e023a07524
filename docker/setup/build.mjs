// Compiles the sources if one of them is newer than the last build. One build serves the gate, the tests and the package.
import { existsSync, readdirSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from './child.mjs';
import { seconds } from './progress.mjs';

const SOURCE_FOLDERS = ['reference-impl', 'conformance', 'faults', 'scenarios', 'docker'];

function newestSource(root) {
  let newest = 0;
  let files = 0;
  const visit = (folder) => {
    // Include the time of the folder: it changes when a file is added or removed.
    newest = Math.max(newest, statSync(folder).mtimeMs);
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      const path = join(folder, entry.name);
      if (entry.isDirectory()) visit(path);
      else if (/\.(tsx?|css|json)$/.test(entry.name)) {
        newest = Math.max(newest, statSync(path).mtimeMs);
        files++;
      }
    }
  };
  for (const folder of SOURCE_FOLDERS) visit(join(root, folder));
  return { files, ms: Math.max(newest, statSync(join(root, 'tsconfig.json')).mtimeMs) };
}

/** Removes output whose source is gone: an old test must not run, and no image may contain old files. */
function removeStaleOutput(root, folder) {
  const output = join(root, 'dist', folder);
  if (!existsSync(output)) return;
  for (const entry of readdirSync(output, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    const source = join(root, path.replace(/\.js(\.map)?$/, '.ts'));
    if (entry.isDirectory()) {
      removeStaleOutput(root, path);
      if (!existsSync(join(root, path))) rmSync(join(root, 'dist', path), { recursive: true });
    } else if (/\.js(\.map)?$/.test(entry.name) && !existsSync(source)) rmSync(join(root, 'dist', path));
  }
}

/** Bundles the browser part of the HTML report into one HTML file without data. Every report is a copy of it. */
async function bundleViewer(root) {
  const script = join('dist', 'scenarios', 'report', 'viewer', 'make-viewer.js');
  const { ok, text } = await run(process.execPath, [script], { cwd: root });
  if (!ok) throw new Error(`bundling the viewer of reports failed:\n${text}`);
}

const stampIn = (root) => join(root, 'dist', '.built');

/** Reports whether a source is newer than the last build. */
export const needsBuild = (root) => !isBuilt(root, newestSource(root).ms);

function isBuilt(root, newestMs) {
  const stamp = statSync(stampIn(root), { throwIfNoEntry: false });
  return stamp !== undefined && stamp.mtimeMs >= newestMs;
}

/**
 * Compiles, if there is something new.
 * @param {{ root: string, progress: import('./progress.mjs').Progress, onStart(): void }} context
 * @throws Error with the messages of the compiler.
 */
export async function build({ root, progress, onStart }) {
  const stamp = stampIn(root);
  const { files, ms } = newestSource(root);
  if (isBuilt(root, ms)) return;
  const startedMs = Date.now();
  const { ok, text } = await progress.during(
    `compiling ${files} files`,
    (elapsedMs) => `compiling: ${seconds(elapsedMs)}, usually 10 to 40 s`,
    () =>
      run(process.execPath, [join(root, 'node_modules', 'typescript', 'bin', 'tsc')], { cwd: root, onStart }),
  );
  if (!ok) throw new Error(`the build failed:\n${text}`);
  for (const folder of SOURCE_FOLDERS) removeStaleOutput(root, folder);
  await bundleViewer(root);
  const startedAt = new Date(startedMs);
  writeFileSync(stamp, startedAt.toISOString());
  // A source that changed while the compiler ran may have been read before: it is newer than this time.
  utimesSync(stamp, startedAt, startedAt);
}

import { isAbsolute, join, relative } from 'node:path';
import type { Verdict } from '../../conformance/checkers/verdict.js';
import { packageRoot } from './version.js';

/** Path of the page with the usual causes of every violation, relative to the folder of the package. */
export const FIX_IT_PAGE = 'conformance/FIX-IT.md';

/**
 * Returns where the user finds the usual causes of a violation: the path of the page, and the anchor of the
 * requirement. The path is relative to the current directory if the package is below it, as in a checkout and in a
 * folder with the installed package. Otherwise it is absolute, as for a package that npx has in its cache.
 */
export function fixItLink(
  requirement: string,
  from: string = currentDirectory(),
  root: string = packageRoot(),
): string {
  const path = join(root, FIX_IT_PAGE);
  const near = relative(from, path);
  const isBelow = from !== '/' && !near.startsWith('..') && !isAbsolute(near);
  return `${isBelow ? near : path}#${requirement.toLowerCase()}`;
}

/** Formats one line for each requirement that failed. */
export function fixItLines(requirements: readonly { id: string; verdict: Verdict }[]): string[] {
  return requirements.filter(({ verdict }) => verdict === 'fail').map(({ id }) => `Fix it: ${fixItLink(id)}`);
}

/** Returns the requirements as `--json` prints them: each that failed says where its usual causes are (`fixIt`). */
export function withFixIt<R extends { id: string; verdict: Verdict }>(
  requirements: readonly R[],
): (R & { fixIt?: string })[] {
  return requirements.map((one) => (one.verdict === 'fail' ? { ...one, fixIt: fixItLink(one.id) } : one));
}

/** Returns the current directory; the root of all directories when it was removed during the run. */
function currentDirectory(): string {
  try {
    return process.cwd();
  } catch {
    return '/';
  }
}

import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, sep } from 'node:path';

/** A folder of npm's that has to be in an image, with all that is nested in it. */
export interface InstalledPackage {
  name: string;
  /** Absolute. */
  folder: string;
}

/** What only compiles an addon or chooses how to, and types: an image holds what was compiled. */
const BUILD_ONLY = /^(?:nan|node-gyp|run-script-os|@types\/.*)$/;

/**
 * The packages that are found in some node_modules at or above `from`, and those that they need in turn. Optional
 * ones that are not installed (binaries for other machines) are left out.
 */
export function installedPackages(names: readonly string[], from: string): InstalledPackage[] {
  const found = new Map<string, InstalledPackage>();
  const visit = (name: string, by: string) => {
    if (BUILD_ONLY.test(name)) return;
    const folder = find(name, by);
    if (folder === undefined || found.has(folder)) return;
    found.set(folder, { name, folder });
    for (const needed of dependenciesOf(folder)) visit(needed, folder);
  };
  for (const name of names) visit(name, from);
  // One inside another's node_modules comes along with that one.
  const all = [...found.values()];
  const nested = ({ folder }: InstalledPackage) =>
    all.some((other) => folder.startsWith(join(other.folder, 'node_modules') + sep));
  return all.filter((one) => !nested(one));
}

/** What a package.json says that its package needs at run time. */
export function dependenciesOf(folder: string): string[] {
  const { dependencies, optionalDependencies } = JSON.parse(
    readFileSync(join(folder, 'package.json'), 'utf8'),
  ) as { dependencies?: Record<string, string>; optionalDependencies?: Record<string, string> };
  return Object.keys({ ...dependencies, ...optionalDependencies });
}

function find(name: string, from: string): string | undefined {
  for (let folder = from; ; folder = dirname(folder)) {
    const candidate = join(folder, 'node_modules', name);
    if (existsSync(join(candidate, 'package.json'))) return candidate;
    if (dirname(folder) === folder) return undefined;
  }
}

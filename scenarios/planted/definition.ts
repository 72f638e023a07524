import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename, join, normalize } from 'node:path';
import { z } from 'zod';
import { KitError, messageOf } from '../../conformance/errors.js';
import { didYouMean } from '../../conformance/nearest.js';
import { REQUIREMENT_IDS } from '../../conformance/requirements/requirements.js';
import { findImplementation, IMPLEMENTATIONS, type Implementation } from '../host/implementations.js';
import { packageRoot } from '../host/version.js';

const PlantedBug = z.strictObject({
  id: z.string().regex(/^[a-z0-9-]+$/),
  /** The real-world bug that the planted bug represents, in a sentence or two. */
  description: z.string().min(1),
  /** Name of the reference implementation that gets the bug. */
  implementation: z.string(),
  /**
   * Path of the source file to change, relative to reference-impl/. It is in the folder of the implementation or in
   * common/.
   */
  file: z.string().regex(/^[\w./-]+\.ts$/),
  /** Literal text to replace, which must be in the file exactly once. */
  find: z.string().min(1),
  replace: z.string(),
  /** The requirement that the bug violates. */
  requirement: z.enum(REQUIREMENT_IDS),
  /**
   * Other requirements that the bug also violates. A run ends at its first violation, which may be a
   * violation of one of these.
   */
  alsoAccepted: z.array(z.enum(REQUIREMENT_IDS)).default([]),
  /** Names of the faults that show the bug. */
  faults: z.array(z.string()).min(1),
  /**
   * Kind of failure that shows the bug.
   * - `process`: the faults of the field `faults`.
   * - `power`: only power cuts. Gates use no other fault to hunt such a bug.
   * - `interleaving`: only an order of events that is too rare among real processes. Gates do not hunt such
   *   a bug.
   */
  shownBy: z.enum(['process', 'power', 'interleaving']),
});

/** A small change to a reference implementation, which must make one requirement fail. */
export type PlantedBug = z.output<typeof PlantedBug>;

/** Name of the file with the results of the hunts, which is in the same directory as the bugs. */
const RESULTS_FILE_NAME = 'results.json';

/** Directory of the planted bugs. */
export const PLANTED_DIR = join(packageRoot(), 'conformance/planted');

/** Folder below reference-impl/ with what several implementations use. */
export const COMMON_FOLDER = 'common';

/** Which planted bugs to read, and where. */
export interface PlantedSelection {
  /** Name of the implementation whose bugs are returned. Default: the bugs of all. */
  implementation?: string | undefined;
  /** Directory of the definitions. Default: that of the package. */
  dir?: string;
  /** The implementations that a definition may name. Default: those of the kit. */
  implementations?: readonly Implementation[];
}

/**
 * Reads the planted bugs, sorted by file name.
 * @param requestedIds ids of the bugs to return; an empty list means all bugs.
 * @throws KitError bad-target when a file is wrong, bad-usage when an id or the implementation is unknown, or when the
 *   implementation has no bug: a hunt of nothing would pass.
 */
export function loadPlantedBugs(
  requestedIds: readonly string[],
  { implementation, dir = PLANTED_DIR, implementations = IMPLEMENTATIONS }: PlantedSelection = {},
): PlantedBug[] {
  if (implementation !== undefined)
    findImplementation(implementation, '--implementation', 'bad-usage', implementations);
  const files = existsSync(dir)
    ? readdirSync(dir).filter((name) => name.endsWith('.json') && name !== RESULTS_FILE_NAME)
    : [];
  const bugs = files
    .sort()
    .map((name) => readBug(join(dir, name), implementations))
    .filter((bug) => implementation === undefined || bug.implementation === implementation);
  if (implementation !== undefined && bugs.length === 0)
    throw new KitError('bad-usage', `--implementation ${implementation}: ${dir} has no planted bug of it`);
  const unknown = requestedIds.find((id) => !bugs.some((bug) => bug.id === id));
  if (unknown !== undefined) {
    const ids = bugs.map(({ id }) => id);
    const what = implementation === undefined ? 'planted bug' : `planted bug of ${implementation}`;
    throw new KitError(
      'bad-usage',
      `${unknown}: no such ${what}, expected one of: ${ids.join(', ') || 'none exists'}${didYouMean(unknown, ids)}`,
    );
  }
  return requestedIds.length === 0 ? bugs : bugs.filter(({ id }) => requestedIds.includes(id));
}

function readBug(file: string, implementations: readonly Implementation[]): PlantedBug {
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    throw new KitError('bad-target', `${file}: expected JSON: ${messageOf(error)}`, { cause: error });
  }
  const parsed = PlantedBug.safeParse(json);
  if (!parsed.success) {
    const problems = parsed.error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`);
    throw new KitError('bad-target', `${file}: ${problems.join('; ')}`);
  }
  const bug = parsed.data;
  // The results are kept by id, so two bugs with one id would overwrite each other.
  const idOfFile = basename(file, '.json');
  if (bug.id !== idOfFile)
    throw new KitError(
      'bad-target',
      `${file}: id: expected ${idOfFile} as in the name of the file, found ${bug.id}`,
    );
  findImplementation(bug.implementation, `${file}: implementation:`, 'bad-target', implementations);
  const folders = [`${bug.implementation}/`, `${COMMON_FOLDER}/`];
  if (!folders.some((folder) => normalize(bug.file).startsWith(folder)))
    throw new KitError(
      'bad-target',
      `${file}: file: expected a path below ${folders.join(' or ')}, found ${bug.file}`,
    );
  return bug;
}

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { KitError, messageOf } from '../../conformance/errors.js';
import { REQUIREMENT_IDS } from '../../conformance/requirements/requirements.js';
import { packageRoot } from '../host/version.js';

const PlantedBug = z.strictObject({
  id: z.string().regex(/^[a-z0-9-]+$/),
  /** The bug of the real world that it stands for. */
  description: z.string().min(1),
  /** Path of the source below reference-impl/. */
  file: z.string().regex(/^[\w./-]+\.ts$/),
  /** Literal text that is in the file exactly once. */
  find: z.string().min(1),
  replace: z.string(),
  requirement: z.enum(REQUIREMENT_IDS),
  /** Other requirements that the bug also violates: a run ends at the first violation, and may show one of these first. */
  alsoAccepted: z.array(z.enum(REQUIREMENT_IDS)).default([]),
  /** Names of the faults that show it. */
  faults: z.array(z.string()).min(1),
  /**
   * `process`: hunted with its faults. `power`: only power cuts show it, and it is hunted with nothing else.
   * `interleaving`: it takes an order of events that real processes come to too seldom; not hunted.
   */
  shownBy: z.enum(['process', 'power', 'interleaving']),
});

/** A small change to the reference implementation that must turn one requirement red. */
export type PlantedBug = z.output<typeof PlantedBug>;

/** What was found of them stands beside them. */
const RESULTS_FILE_NAME = 'results.json';

export const PLANTED_DIR = join(packageRoot(), 'conformance/planted');

/**
 * Reads all planted bugs, or those that are named, in order of their names.
 * @throws KitError bad-target when a file is wrong, bad-usage when a name is unknown.
 */
export function loadPlantedBugs(requestedIds: readonly string[], dir = PLANTED_DIR): PlantedBug[] {
  const files = existsSync(dir)
    ? readdirSync(dir).filter((name) => name.endsWith('.json') && name !== RESULTS_FILE_NAME)
    : [];
  const bugs = files.sort().map((name) => readBug(join(dir, name)));
  const unknown = requestedIds.find((id) => !bugs.some((bug) => bug.id === id));
  if (unknown !== undefined) {
    const known = bugs.map(({ id }) => id).join(', ') || 'none is there';
    throw new KitError('bad-usage', `${unknown}: no such planted bug, expected one of: ${known}`);
  }
  return requestedIds.length === 0 ? bugs : bugs.filter(({ id }) => requestedIds.includes(id));
}

function readBug(file: string): PlantedBug {
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    throw new KitError('bad-target', `${file}: expected JSON: ${messageOf(error)}`, { cause: error });
  }
  const parsed = PlantedBug.safeParse(json);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`);
  throw new KitError('bad-target', `${file}: ${problems.join('; ')}`);
}

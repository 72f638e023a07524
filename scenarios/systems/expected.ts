import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { KitError, messageOf } from '../../conformance/errors.js';
import { didYouMean } from '../../conformance/nearest.js';
import { REQUIREMENT_IDS } from '../../conformance/requirements/requirements.js';
import { FAULT_NAMES } from '../../conformance/target-file/definition.js';
import { packageRoot } from '../host/version.js';

/**
 * Folder of the target files of real systems. Its `expected.json` lists the expected results of a gate on
 * each.
 */
export const SYSTEMS_DIR = join(packageRoot(), 'conformance/targets/systems');

const RunSchema = z.strictObject({
  faults: z.array(z.enum(FAULT_NAMES)).min(1),
  verdict: z.enum(['pass', 'fail']),
  /** Requirements of which at least one fails when the verdict is `fail`. */
  red: z.array(z.enum(REQUIREMENT_IDS)).default([]),
  /**
   * Further requirements that may fail, when a crash falls at the right moment. No other requirement may
   * fail.
   */
  mayFail: z.array(z.enum(REQUIREMENT_IDS)).default([]),
  budgetSeconds: z.number().min(1),
  /** Reason for the expected result. `plugpull systems` prints it. */
  reason: z.string().min(1),
  /** Reason why the run takes place only when its system is named. Absent: it is part of every `plugpull systems`. */
  onlyNamed: z.string().min(1).optional(),
});

const SystemSchema = z.strictObject({
  /** Program on the PATH, or an absolute path. It exists if the system is installed. */
  program: z.string().min(1),
  /** Name of the Debian package. */
  package: z.string().min(1),
  /**
   * Debian packages to unpack instead of an installation, because `package` conflicts with other packages, or because
   * its service must not run on the machine.
   */
  unpack: z.array(z.string().min(1)).default([]),
  runs: z.array(RunSchema).min(1),
});

export type ExpectedRun = z.output<typeof RunSchema>;
export type ExpectedSystem = z.output<typeof SystemSchema> & { name: string };

/**
 * Loads the expected results of all real systems, or of the named ones, in the order of the file. Runs with `onlyNamed`
 * are left out when no name is given, and so is a system without another run.
 * @throws KitError bad-target when the file is invalid, bad-usage when a name is unknown.
 */
export function loadExpectedSystems(requestedNames: readonly string[], dir = SYSTEMS_DIR): ExpectedSystem[] {
  const file = join(dir, 'expected.json');
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    throw new KitError('bad-target', `${file}: expected JSON: ${messageOf(error)}`, { cause: error });
  }
  const parsed = z.record(z.string(), SystemSchema).safeParse(json);
  if (!parsed.success) {
    const problems = parsed.error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`);
    throw new KitError('bad-target', `${file}: ${problems.join('; ')}`);
  }
  const systems = Object.entries(parsed.data).map(([name, system]) => ({ name, ...system }));
  const unknown = requestedNames.find((name) => !systems.some((system) => system.name === name));
  if (unknown !== undefined) {
    const known = systems.map(({ name }) => name).join(', ');
    const hint = didYouMean(
      unknown,
      systems.map(({ name }) => name),
    );
    throw new KitError('bad-usage', `${unknown}: no such system, expected one of: ${known}${hint}`);
  }
  if (requestedNames.length > 0) return systems.filter(({ name }) => requestedNames.includes(name));
  return systems
    .map((system) => ({ ...system, runs: system.runs.filter(({ onlyNamed }) => onlyNamed === undefined) }))
    .filter(({ runs }) => runs.length > 0);
}

import { dirname, resolve } from 'node:path';
import { parseBoundedJson } from '../bounded-json.js';
import { KitError, messageOf } from '../errors.js';
import { limit } from '../limits.js';
import { readRegularFile } from '../read-file.js';
import { claimProblems } from './claim-problems.js';
import { type Target, TargetDefinition, type TargetInput } from './definition.js';
import { nodeProblems } from './node-problems.js';
import { placeholderProblems } from './placeholders.js';
import { schemaProblems } from './schema-problems.js';
import { newerVersionProblem, toPresentForm } from './versions.js';

/** Error for a target file that can be read and has wrong content. */
export class TargetFileError extends KitError {
  /** The problems as `key path: what was expected`, one line each. */
  readonly problems: readonly string[];

  constructor(where: string, problems: readonly string[]) {
    // A key or a name of the file may contain a line break: each problem stays on one line.
    const lines = problems.map((problem) => problem.replace(/\s+/g, ' '));
    super('bad-target', `${where}: ${lines.join('; ')}`);
    this.problems = lines;
  }
}

/**
 * Reads a target file.
 * @param options.checkClaims false accepts claims that the other keys do not support, as earlier versions did: the
 *   evidence of a certificate may have such a target. Default: true.
 * @throws KitError bad-target (exit code 2) that names the file, the key path, and what was expected there.
 */
export function loadTarget(file: string, { checkClaims = true } = {}): Target {
  let bytes: Buffer;
  try {
    bytes = readRegularFile(file, limit('target-file-bytes'));
  } catch (error) {
    throw new KitError('bad-target', `${file}: expected a target file: ${messageOf(error)}`, {
      cause: error,
    });
  }
  let json: unknown;
  try {
    json = parseBoundedJson(bytes);
  } catch (error) {
    const text = bytes.toString('utf8');
    throw new KitError('bad-target', `${file}: expected JSON: ${messageOf(error)}${lineOf(text, error)}`, {
      cause: error,
    });
  }
  return parseTarget(json, dirname(resolve(file)), file, checkClaims);
}

/**
 * Checks a target that is defined in code.
 * @param dir folder that replaces `{dir}`.
 * @throws KitError bad-target, like `loadTarget`.
 */
export function defineTarget(definition: TargetInput, dir: string): Target {
  return parseTarget(definition, resolve(dir), `target ${definition.name}`);
}

function parseTarget(given: unknown, dir: string, where: string, checkClaims = true): Target {
  const newer = newerVersionProblem(given);
  if (newer !== undefined) throw new TargetFileError(where, [newer]);
  const json = toPresentForm(given);
  const parsed = TargetDefinition.safeParse(json);
  if (!parsed.success) {
    throw new TargetFileError(where, schemaProblems(parsed.error.issues, json));
  }
  const problems = [
    ...placeholderProblems(parsed.data),
    ...nodeProblems(parsed.data),
    ...(checkClaims ? claimProblems(parsed.data) : []),
  ];
  if (problems.length > 0) throw new TargetFileError(where, problems);
  return { ...parsed.data, dir };
}

/** Returns the line and column of a JSON error if the parser's message has a position; otherwise ''. */
function lineOf(text: string, error: unknown): string {
  const position = /position (\d+)/.exec(messageOf(error))?.[1];
  if (position === undefined) return '';
  const before = text.slice(0, Number(position)).split('\n');
  return ` (line ${before.length}, column ${(before.at(-1)?.length ?? 0) + 1})`;
}

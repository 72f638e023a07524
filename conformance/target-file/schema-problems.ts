import type { z } from 'zod';
import { didYouMean, nearest } from '../nearest.js';

/** Longest text of a wrong value in a problem. */
const MAX_FOUND_CHARS = 60;

/**
 * Describes why a value does not fit a schema, one line per problem: `key path: expected …, found …`. Every
 * schema of a target file says what it expects, so the validator's own words never appear.
 * @param json the value that was checked.
 */
export function schemaProblems(issues: readonly z.core.$ZodIssue[], json: unknown): string[] {
  const misspelt = misspeltKeys(issues);
  return issues.flatMap((issue) => {
    const path = issue.path.map(String);
    // The line about the unknown key says it all: the key that is missing has another name in the file.
    if (misspelt.has(pathText(path)) && valueAt(json, issue.path) === undefined) return [];
    if (issue.code === 'unrecognized_keys')
      return issue.keys.map(
        (key) =>
          `${[...path, key].join('.')}: unknown key, expected ${issue.message}${didYouMean(key, optionsIn(issue.message))}`,
      );
    if (issue.code === 'invalid_key') {
      const [cause] = issue.issues;
      return [`${path.join('.')}: bad key, expected ${cause?.message ?? issue.message}`];
    }
    const value = valueAt(json, issue.path);
    const hint = typeof value === 'string' ? didYouMean(value, optionsIn(issue.message)) : '';
    return [`${path.join('.') || '(the whole)'}: expected ${issue.message}, found ${describe(value)}${hint}`];
  });
}

/** Returns the paths of the keys that the unknown keys were probably meant to be. */
function misspeltKeys(issues: readonly z.core.$ZodIssue[]): Set<string> {
  const paths = new Set<string>();
  for (const issue of issues) {
    if (issue.code !== 'unrecognized_keys') continue;
    for (const key of issue.keys) {
      const meant = nearest(key, optionsIn(issue.message));
      if (meant !== undefined) paths.add(pathText([...issue.path.map(String), meant]));
    }
  }
  return paths;
}

/** Returns a text that is different for different paths, whatever characters the keys have. */
function pathText(path: readonly string[]): string {
  return JSON.stringify(path);
}

/** Returns the words that a rule such as `one of kill, pause` lists or sets in quotation marks. */
function optionsIn(rule: string): string[] {
  const listed = /^one of (.+)$/.exec(rule)?.[1]?.split(', ');
  return listed ?? [...rule.matchAll(/"([^"]+)"/g)].map(([, word = '']) => word);
}

function valueAt(json: unknown, path: readonly PropertyKey[]): unknown {
  let value = json;
  for (const key of path) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, key)) return undefined;
    value = (value as Record<PropertyKey, unknown>)[key];
  }
  return value;
}

function describe(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (typeof value === 'number') return `${value}`;
  const text = JSON.stringify(value);
  return text.length > MAX_FOUND_CHARS ? `${text.slice(0, MAX_FOUND_CHARS)}…` : text;
}

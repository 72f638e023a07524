import { commandLine, pathFromHere } from '../host/command-line.js';
import type { LogTail, SystemResult } from '../systems/measure.js';

/**
 * Formats an unexpected result of a system as lines. The log of a CI run alone must be enough to start the
 * analysis.
 */
export function unexpectedReport(
  {
    violations,
    evidence,
    bundle,
    replay,
  }: Pick<SystemResult, 'violations' | 'evidence' | 'bundle' | 'replay'>,
  logTails: readonly LogTail[],
): string[] {
  return [
    ...violations.map(({ requirement, id, what }) => `${requirement}${id ? ` message ${id}` : ''}: ${what}`),
    ...logTails.flatMap(({ file, lines }) => [`the end of ${file}:`, ...lines.map((line) => `  ${line}`)]),
    ...(evidence === null ? [] : [`evidence: ${evidence}`]),
    ...(bundle === null ? [] : [`this failure again: ${commandLine('replay', pathFromHere(bundle))}`]),
    `run it again: ${replay}`,
  ];
}

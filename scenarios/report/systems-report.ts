import { shellWord } from '../host/shell.js';
import type { LastWords, Measured } from '../systems/measure.js';

/** What is told of a run that went otherwise than expected: with its log alone somebody must be able to begin. */
export function otherwiseReport(
  { violations, evidence, bundle, replay }: Pick<Measured, 'violations' | 'evidence' | 'bundle' | 'replay'>,
  said: readonly LastWords[],
): string[] {
  return [
    ...violations.map(({ requirement, id, what }) => `${requirement}${id ? ` message ${id}` : ''}: ${what}`),
    ...said.flatMap(({ file, lines }) => [`the end of ${file}:`, ...lines.map((line) => `  ${line}`)]),
    ...(evidence === null ? [] : [`evidence: ${evidence}`]),
    ...(bundle === null ? [] : [`this failure again: plugpull replay ${shellWord(bundle)}`]),
    `run it again: ${replay}`,
  ];
}

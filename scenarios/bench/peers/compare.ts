import { type Answer, play } from './dialogue.js';
import { SEQUENCES, type Sequence } from './sequences.js';
import type { Server } from './servers.js';

/** The answers of all servers to one sequence. */
export interface Comparison {
  sequence: Sequence;
  /** By the name of the server. */
  answers: Map<string, Answer>;
}

/** Plays all sequences to all servers, one after the other. */
export async function compare(servers: readonly Server[]): Promise<Comparison[]> {
  const comparisons: Comparison[] = [];
  for (const sequence of SEQUENCES) {
    const answers = new Map<string, Answer>();
    for (const { name, port } of servers) answers.set(name, await play(port, sequence));
    comparisons.push({ sequence, answers });
  }
  return comparisons;
}

/** Formats the comparison as a table. A row with different codes has a `*`, and a note below it if there is one. */
export function formatComparison(comparisons: readonly Comparison[]): string {
  const names = [...(comparisons[0]?.answers.keys() ?? [])];
  const rows = comparisons.map(({ sequence, answers }) => ({
    cells: [sequence.name, ...names.map((name) => answers.get(name)?.codes ?? '')],
    note: isDifferent(answers) ? sequence.note : undefined,
    mark: isDifferent(answers) ? '*' : ' ',
  }));
  const header = ['sequence', ...names];
  const widths = header.map((title, at) =>
    Math.max(title.length, ...rows.map(({ cells }) => cells[at]?.length ?? 0)),
  );
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, at) => cell.padEnd(widths[at] ?? 0))
      .join('  ')
      .trimEnd();
  return [
    `  ${line(header)}`,
    ...rows.flatMap(({ cells, note, mark }) => [
      `${mark} ${line(cells)}`,
      ...(note === undefined ? [] : [`      ${note}`]),
    ]),
    '',
  ].join('\n');
}

/** Returns whether two servers answered with different codes. */
export function isDifferent(answers: ReadonlyMap<string, Answer>): boolean {
  return new Set([...answers.values()].map(({ codes }) => codes)).size > 1;
}

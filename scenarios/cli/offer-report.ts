import type { Verdict } from '../../conformance/checkers/verdict.js';
import { attempt } from '../host/attempt.js';
import { commandLine, pathFromHere } from '../host/command-line.js';
import { log } from '../host/console.js';
import { html } from '../report/reporters/from-evidence.js';

/**
 * After a failure, names the command that shows it. In CI nobody can run the command, so the report is written into the
 * evidence at once. A report that cannot be written is one warning: the verdict is known.
 * @param evidence directory of the evidence; null or undefined when it was not kept.
 */
export async function offerReport(verdict: Verdict, evidence: string | null | undefined): Promise<void> {
  if (verdict !== 'fail' || evidence === null || evidence === undefined) return;
  if (isCi()) {
    const file = await attempt('the report was not written', () => html.write(evidence, undefined));
    if (file !== undefined) log(`report: ${file}`);
  } else log(`see what happened: ${commandLine('report', pathFromHere(evidence))}`);
}

/** Reports whether this is a CI system: all of them set `CI`. */
function isCi(): boolean {
  return !['', '0', 'false'].includes(process.env.CI ?? '');
}

import type { Manifest } from '../bundle/manifest.js';
import { commandLine, pathFromHere } from '../host/command-line.js';
import { fixItLink } from '../host/fix-it.js';
import { kitVersion } from '../host/version.js';
import type { ReplayResult } from './replay.js';

/** Describes the failure that a bundle recorded, under a heading: it is no result of the replay. */
export function describeRecorded({
  target,
  why,
  summary,
  kitVersion: version,
  omittedFiles,
}: Pick<Manifest, 'target' | 'why' | 'summary' | 'kitVersion' | 'omittedFiles'>): string[] {
  const lines = ['recorded:', `${target.definition.name}: ${why}`, ...summary];
  if (version !== kitVersion())
    lines.push(`the bundle was made by version ${version}, this is ${kitVersion()}`);
  if (omittedFiles.length > 0) lines.push(`left out by the limits of a bundle: ${omittedFiles.join(', ')}`);
  return lines;
}

/** Says what a replay is about to do, after the recorded failure and before the lines of its runs. */
export function describeStart({ case: { kind } }: Pick<Manifest, 'case'>, maxRuns: number): string[] {
  const times = maxRuns === 1 ? 'once' : `at most ${maxRuns} times`;
  const what =
    kind !== 'gate'
      ? 'the target recovers from the recorded crash state'
      : `the recorded schedule runs again, ${times}`;
  return ['', `replay: ${what}`];
}

/** Describes the result of a replay. The recorded failure was described before, so it is not told again. */
export function describeResult(result: ReplayResult): string[] {
  const lines = [''];
  if (result.verdict === 'fail') {
    const reproducedThing = result.kind === 'gate' ? 'schedule' : 'crash state';
    lines.push('failed again:', `${reproducedThing}: ${result.reproducer}`, ...result.story, '');
  }
  lines.push(`${result.verdict}: ${result.why}`);
  if (result.meaning !== null) lines.push(`this means: ${result.meaning}`);
  if (result.verdict === 'fail') lines.push(...result.requirements.map((id) => `Fix it: ${fixItLink(id)}`));
  if (result.recordAnew !== null)
    lines.push(
      'only a change of the recovery can change this verdict: how the target writes is not tested',
      `to test a change of how it writes, record a new run: ${result.recordAnew}`,
    );
  if (result.shrunkBundle !== null)
    lines.push(`a smaller bundle: ${commandLine('replay', pathFromHere(result.shrunkBundle))}`);
  return lines;
}

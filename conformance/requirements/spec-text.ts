import { LEVELS, type LevelRule, requirementsOf } from './levels.js';
import type { Requirement } from './requirements.js';

/** The text of `SPEC.md`; the document is exactly this. */
export function specText(): string {
  return `${[HEAD, levelsSection(), ...LEVELS.flatMap(levelSection), TAIL].join('\n\n')}\n`;
}

const HEAD = `# What a durable message queue must do

This is the contract that PlugPull measures. It is made from \`requirements.ts\`, and a test keeps the two the same. The
words MUST and MUST NOT are those of RFC 2119. _Confirmed_, _rejected_ and _indefinite_ are the outcomes of a submit: yes, no,
and neither. A message is _consumed_ when its receiver has accepted it.

A requirement is claimed by a target or it is not looked at; a claimed one is passed, failed or not measured, and not
measured never counts as passed. The verdict of a run is

- **fail** when a claimed requirement failed, whether or not the run set out to measure it;
- else **not-measured** when nothing was confirmed, no fault hit, or no crash found a confirmed message undelivered; or when a
  claimed requirement in the run's scope was not measured. In scope is what needs one of the faults that the run tried;
  requirements whose occasion comes by chance only are reported, and leave the verdict alone;
- else **pass**, which speaks of the requirements that were measured and of no others.`;

const TAIL = `## What counts as a duplicate

A delivery is one when the same recipient had consumed the message before and the target knew. It knew, where it is pulled
from, when it answered the consumption. Where it pushes, it knew when the session of the delivery was ended in order, or when the
session went on for more messages than the target claims to hold unrecorded (\`inDeliveryPerSession\`); an acceptance in a
session that broke, or that was open at a crash, was in delivery, may come again, and is counted apart. A target that claims no
number per session is given one second after the end of a session to record it.`;

function levelsSection(): string {
  return [
    '## Levels',
    '',
    'A level is granted by a certificate, not by a run of the gate. It is granted when, in a run of the faults of that level,',
    'each of these faults hit, nothing failed, PP-1, PP-2, PP-4, PP-6 and every requirement of the level were measured',
    'with confirmed messages at risk, and passed; and when the levels that it needs are granted. One requirement that was not',
    'measured is enough to refuse it. What may be left unclaimed is named beside the level.',
    '',
    '| level | the requirements hold when | needs | faults | if claimed | requirements |',
    '|---|---|---|---|---|---|',
    ...LEVELS.map(levelRow),
  ].join('\n');
}

function levelRow({
  level,
  condition: what,
  requires: upon,
  faults,
  optionalFaults: also,
}: LevelRule): string {
  const ids = requirementsOf(level).map(({ id, waivable }) => (waivable ? `(${id})` : id));
  const cells = [level, what, upon, faults, also, ids].map((cell) =>
    typeof cell === 'string' ? cell : cell.join(', ') || '–',
  );
  return `| ${cells.join(' | ')} |`;
}

function levelSection({ level }: LevelRule): string[] {
  const requirements = requirementsOf(level);
  if (requirements.length === 0) return [];
  return [`## Level ${level}`, ...requirements.map(requirementSection)];
}

function requirementSection(requirement: Requirement): string {
  const { id, title, sentence, why, source, scenarios, evidence, notEvidence } = requirement;
  const { needs, byChance, waivable } = requirement;
  const faults = needs === 'any' ? 'any' : needs.join(', ');
  return [
    `### ${id}: ${title}`,
    '',
    sentence,
    '',
    `- Why: ${why}`,
    `- Source: ${source}`,
    `- Measured by: ${scenarios}`,
    `- Evidence: ${evidence}`,
    `- Does not count: ${notEvidence}`,
    `- In scope when a run tries: ${faults}${byChance ? ' (its occasion comes by chance)' : ''}`,
    ...(waivable ? ['- The level can be had without it, by a target that does not claim it.'] : []),
  ].join('\n');
}

import { LEVELS, type LevelRule, requirementsOf } from './levels.js';
import type { Requirement } from './requirements.js';

/** Returns the whole text of `SPEC.md`; a test compares the file with it. */
export function specText(): string {
  return `${[HEAD, levelsSection(), ...LEVELS.flatMap(levelSection), TAIL].join('\n\n')}\n`;
}

const HEAD = `# What a durable message queue must do

This is the contract that PlugPull measures. It is generated from \`requirements.ts\`, and a test fails if the two differ.
The words MUST and MUST NOT have the meaning of RFC 2119. A submit has one of three outcomes: _confirmed_ (the target
answered yes), _rejected_ (it answered no) or _indefinite_ (anything else). A message is _consumed_ when its receiver has
accepted it. At a crash, a message is _at risk_ if it was confirmed and not yet delivered.

Sources: a number in brackets, such as [0017], is a paragraph of the patent application "Synchronous Message Queues"
(Gemini Mobile Technologies, US 2005/0223163 A1). "Claim 1" is the first of its claims.

PlugPull evaluates the requirements that a target claims, and no others. Each of them passes, fails, or is not measured.
A requirement that was not measured never counts as passed. The verdict of a run is

- **fail** if a claimed requirement failed, in or out of the scope of the run;
- otherwise **not-measured** if no message was confirmed, if no fault hit, or if no confirmed message was undelivered at
  any crash; also if a claimed requirement in the scope of the run was not measured. A requirement is in scope if the run
  tried one of the faults that it needs. Some situations cannot be forced: their requirements are reported and do not
  change the verdict;
- otherwise **pass**. This covers the requirements that were measured, and no others.`;

const TAIL = `## What counts as a duplicate

A delivery is a duplicate if the same recipient had consumed the message before and the target knew it. With a protocol
that pulls, the target knew it once it had answered the consumption. With a protocol that pushes, it knew it once the
session of the delivery had ended in order, or had continued for more messages than the target claims to leave unrecorded
(\`inDeliveryPerSession\`). An acceptance in a session that broke, or that was open at a crash, was in delivery: the
message may come again and is counted separately. A target that claims no number per session has one second after the end
of a session to record the acceptances.`;

function levelsSection(): string {
  return [
    '## Levels',
    '',
    'A certificate grants levels. A run of the gate does not. A level is granted if all of this holds for a run with the faults',
    'of the level: each of these faults hit; no requirement failed; PP-1, PP-2, PP-4, PP-6 and every requirement of the level',
    'were measured with confirmed messages at risk, and passed; the required levels are granted. (The run of the level',
    'crash-states measures only the requirements of that level.) One requirement that was not measured prevents the grant.',
    'A target may leave the requirements in parentheses and the optional faults unclaimed; the certificate then names them.',
    '',
    '| level | the requirements hold when | required levels | faults | optional faults | requirements |',
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
    `- In scope if a run tries: ${faults}${byChance ? ' (a run cannot force the situation)' : ''}`,
    ...(waivable ? ['- Optional: a target that does not claim it can still get the level.'] : []),
  ].join('\n');
}

import { type Level, REQUIREMENTS, type Requirement } from './requirements.js';

const LEVELS: Record<Level, string> = {
  process: 'processes of the target are killed, stopped and started again',
  torn: 'the stored index is lost or damaged, and bytes that were never confirmed are torn',
  power: 'the whole machine stops, and what was not flushed is gone',
  'crash-states': 'any subset of the writes since the last flush is on the disk',
  errors: 'the disk is full, rots, or answers with errors',
};

/** The text of `SPEC.md`; the document is exactly this. */
export function specText(): string {
  return `${[HEAD, levels(), ...REQUIREMENTS.map(section), TAIL].join('\n\n')}\n`;
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

function levels(): string {
  const rows = Object.entries(LEVELS).map(([level, what]) => `- **${level}**: ${what}`);
  return ['## Levels', '', 'The requirements of a level hold when', '', ...rows].join('\n');
}

function section(requirement: Requirement): string {
  const { id, title, sentence, why, source, evidence, level, needs, byChance } = requirement;
  const faults = needs === 'any' ? 'any' : needs.join(', ');
  return [
    `## ${id}: ${title}`,
    '',
    sentence,
    '',
    `- Level: ${level}`,
    `- Why: ${why}`,
    `- Source: ${source}`,
    `- Evidence: ${evidence}`,
    `- In scope when a run tries: ${faults}${byChance ? ' (its occasion comes by chance)' : ''}`,
  ].join('\n');
}

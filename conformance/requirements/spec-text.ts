import { LEVELS, type LevelRule, requirementsOf } from './levels.js';
import type { Requirement } from './requirements.js';

/** Returns the whole text of `SPEC.md`; a test compares the file with it. */
export function specText(): string {
  return `${[HEAD, levelsSection(), ...LEVELS.flatMap(levelSection), TAIL].join('\n\n')}\n`;
}

const HEAD = `# What a durable message queue must do

This is the contract that PlugPull measures. It is generated from \`requirements.ts\`, and a test fails if the two differ.
The words MUST and MUST NOT have the meaning of RFC 2119.

Sources: a number in brackets, such as [0017], is a paragraph of the patent application "Synchronous Message Queues"
(Gemini Mobile Technologies, US 2005/0223163 A1). "Claim 1" is the first of its claims.

## Terms

| term | meaning |
|---|---|
| target | the message queue under test |
| claim | a promise in the target file: which faults the target survives, and within which bounds |
| confirmed, rejected, indefinite | the three outcomes of a submit: the target answered yes; it answered no; anything else, such as no answer |
| accepted, consumed | the receiver accepted a delivery; the message is then consumed |
| crash | a fault stops processes of the target, or its whole machine |
| hit, miss | a fault is a hit if it had its effect, for example if it killed a process; otherwise it is a miss ([every fault](../faults/README.md#every-fault)) |
| at risk | a message is at risk if it is confirmed and not yet consumed: a crash could lose it |
| recovery | what the target does from its restart after a crash until it is ready |
| restore | the part of a recovery that makes the index agree with the data |
| record | one message as it is stored in the files of the target |
| index | data by which the target finds its records, and which it can rebuild from them |
| sync | a call by which a program asks for its writes to be put on the disk, such as \`fsync\`; *unsynced* bytes were written, and no completed sync covers them |
| flush | the command by which the kernel makes the drive empty its cache |
| sector | 512 bytes, the unit that a disk writes as a whole |
| torn | only some sectors of a write are on the disk |
| crash state | one disk that a power cut could have left |
| cluster, node | a target of several nodes; each node has its own disk and its own network address |
| down, cut off | the kit has killed the processes of a node and not started them again; the kit has cut links of a node |
| seed | the number from which a run draws every random choice; a *seeded* choice is the same when the seed is the same |
| gate, certificate | \`plugpull gate\` tries the claimed faults in one run; \`plugpull certify\` makes a run for each level and writes a certificate |

## Verdict

PlugPull evaluates the requirements that a target claims, and no others. Each of them passes, fails, or is not measured.
A requirement that was not measured never counts as passed.

A requirement is *in scope* of a run if the run tried one of the faults that the requirement names below. The verdict of a
run is the first of these that applies:

1. **fail**: a claimed requirement failed. A requirement that is not in scope counts too.
2. **not-measured**: the run proves nothing. No message was confirmed; or no fault hit; or there were crashes, and no
   message was at risk at any of them; or too few crash states were explored (PP-13).
3. **not-measured**: a claimed requirement in scope was not measured. Requirements whose situation a run cannot force are
   excepted (*May stay unmeasured* below). The report then shows that they were not measured, and the verdict does not
   change.
4. **not-measured**: a fault that the user named (\`--faults\`) never hit.
5. **pass**: the requirements that were measured passed. The verdict says nothing about the others.

PP-12 and PP-15 to PP-19 are about one kind of fault. Each counts a lost message if this fault was the first crash after the
confirmation. PP-14 does the same for disk errors. PP-21 to PP-23 have [a rule of their own](#losses-in-a-cluster). PP-1 counts
every lost message. A finding about lost messages counts the producers that lost the newest of their confirmed messages (a
suffix), the oldest (a prefix), some in the middle, all, or some in several places. A producer's messages count up to the fault.`;

const TAIL = `## When a message counts as lost

At the end of a round the kit starts no more faults and accepts every delivery. It waits for the confirmed messages that
are outstanding, until the target has delivered nothing for as long as it may keep a message back:

| the target | the kit waits | a message that then is missing |
|---|---|---|
| claims \`guarantee.redeliverySeconds\` | this time, or 1.5 times the longest wait for a message in the round (at most 15 s) if that is longer | is lost. If \`verify\` reports at least as many live messages as are missing, it is *not delivered within N s*, and PP-1 fails too |
| claims no time, and has delivered a message again that the receiver had not accepted, without a crash in between | 1.5 times the longest such wait, at least 6 s, or 1.5 times the longest wait for a message in the round (at most 15 s) if that is longer | is *not delivered within N s*, and PP-1 fails. If \`verify\` reports at least as many live messages as are missing, PP-1 is not measured. Neither is it if the last delivery of the message ended with its connection or with a crash, because the lease may be longer than the wait after a refusal |
| claims no time and has shown no such redelivery, or one after more than 43 s | 65 s | the same; but if the receiver got the message and did not accept it, PP-1 is not measured: the lease or the wait for the next attempt may be longer |

Over \`amqp\`, \`mqtt\`, \`beanstalk\` and \`postgres\` no lease outlives its connection. There PP-1 fails also if the receiver got
the message and did not accept it, or if its connection ended.

The kit runs the target's \`nudge\` command at the beginning of the wait and every 3 s, so that a correct target delivers
early. A nudge does not shorten the wait for a message that does not come.

On a crash state that is inspected by a start of the target (PP-13), the kit waits for missing messages as long as the
target claims, at least 4 s, or 15 s without a claim. It runs \`nudge\` there too. A state whose wait is cut off by the end of
the exploration is not judged.

## What counts as a duplicate

A delivery is a duplicate if the same recipient consumed the message before, and the target knew it. The protocol decides
when the target knew it:

- **Pull** (the receiver asks for messages): when the target has answered the consumption.
- **Push** (the target sends messages in a session, for example over SMTP): when the session of the delivery has ended in
  order. Within a session, the target knew it when the receiver had accepted enough further messages of that session.
  \`inDeliveryPerSession\` in the target file gives their number: it is the most accepted messages of a session that the
  target may not have recorded yet. AMQP has [another proof](protocols/amqp/README.md).

Until then the message is *in delivery*. If the session breaks, or if a crash comes before the target knew it, the message
may come again. Such a second delivery is not a duplicate and is counted separately. The same is true when a consumption
got no answer.

A target that does not claim \`inDeliveryPerSession\` has one more second: a message is still in delivery if the crash comes
within one second after the end of its session.

The [bounds of the target file](README.md#target-file) say how many duplicates are allowed.

## Losses in a cluster

A cluster confirms messages while a fault lasts: an injection into a cluster has a beginning and an end. PP-21 to PP-23
attribute a lost message to the first injection that ended after the confirmation, in the same round. An injection counts if it
hit, and if it stopped a process or acted on links. It ends with the recovery after it. PP-23 does not count a message if a later
crash is known to have taken it from a file: a cut link stops no process, so the message was still there.

A run that injected such a fault has measured nothing if no message was confirmed between the beginning of the injection and the
beginning of the next one.

## Majorities

The history says which nodes are down and which links are cut. Two nodes are connected if both are up and neither direction of
their link is cut. Nodes form a group if they reach each other, also through other nodes of the group.

- A node is *cut off into a minority* (PP-23) if links are cut and its group has at most half of all nodes. Such a node must not
  confirm messages. A node is excepted if it was promoted: if the kit ran the target's \`promote\` command on it in this
  injection or in the last one with a promotion. Such a node may go on alone until the others have caught up.
- *The nodes that must confirm* (PP-24) are the largest group, if all of this is true. No other group has its size, or only this
  one of them has a promoted node. Each of its nodes is connected with each other one. At most \`guarantee.cluster.tolerates\` nodes
  are outside of it. It has more than half of all nodes, or a promoted node. Otherwise nothing is demanded.
- When nothing is down or cut, all nodes must confirm: any of them may do it.

So a target with two nodes must confirm when everything is healed, and when one node is down and the other one was promoted. If
its two nodes are cut from each other, neither may confirm, except one that was promoted. With four nodes in two
halves, no node may confirm and none must.`;

function levelsSection(): string {
  return [
    '## Levels',
    '',
    'A level is a set of requirements, with the faults under which they must hold. `plugpull certify` makes one run for each',
    'level, with the faults of that level, and the certificate grants levels. A run of the gate grants none. A level is granted',
    'if all of this is true:',
    '',
    '- The required levels are granted.',
    '- The target claims to survive each fault of the level. It may leave the optional faults unclaimed.',
    '- Each fault of the level that the target claims hit in the run.',
    '- No claimed requirement failed in the run.',
    '- Every claimed requirement of the level was measured and passed. So were PP-1, PP-2 (if claimed), PP-4 and PP-6. The run of',
    '  the level crash-states is an exception: it must measure PP-13 only.',
    '- Messages were at risk at a crash of the run.',
    '',
    'The requirements in parentheses are optional: the target need not claim them. The certificate names the optional',
    'requirements and faults of a level that the target does not claim. All other requirements of a level must be measured,',
    'including those that may stay unmeasured in a run of the gate. A single one that was not measured prevents the grant.',
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
  const scope = needs === 'any' ? 'every run' : `a run that tries one of these faults: ${needs.join(', ')}`;
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
    `- In scope of: ${scope}`,
    `- Fix it: [the usual causes](FIX-IT.md#${id.toLowerCase()})`,
    ...(byChance ? ['- May stay unmeasured: a run cannot force the situation.'] : []),
    ...(waivable ? ['- Optional: a target that does not claim it can still get the level.'] : []),
  ].join('\n');
}

import type { FaultName, Guarantee } from './target/definition.js';

/** What a target of a level survives; a level holds the requirements of those before it. */
export type Level = 'process' | 'torn' | 'power' | 'crash-states' | 'errors';

export const REQUIREMENT_IDS = [
  'PP-1',
  'PP-2',
  'PP-3',
  'PP-4',
  'PP-5',
  'PP-6',
  'PP-7',
  'PP-8',
  'PP-9',
  'PP-10',
  'PP-11',
  'PP-12',
  'PP-14',
] as const;

export type RequirementId = (typeof REQUIREMENT_IDS)[number];

export interface Requirement {
  id: RequirementId;
  level: Level;
  /** A few words, for tables. */
  title: string;
  /** One sentence in the words of RFC 2119. */
  sentence: string;
  why: string;
  /** Where the promise stands. */
  source: string;
  /** What of a run shows it. */
  evidence: string;
  /** Faults, one of which a run must try for this to be in its scope. */
  needs: 'any' | readonly FaultName[];
  /**
   * True when a run cannot bring the occasion about at will: not measured then says so and leaves the run's verdict
   * alone. False: a run in whose scope this is, and that has not measured it, has not passed.
   */
  byChance: boolean;
  /** Does the target claim it? All that is not optional is claimed by every target. */
  claimed: (target: { guarantee: Guarantee; verify?: readonly string[] | undefined }) => boolean;
}

const always = () => true;

/** Faults after which a target is started again. */
const RESTARTS: readonly FaultName[] = [
  'kill',
  'tear',
  'index-loss',
  'data-rot',
  'power-cut',
  'crash-states',
  'io-error',
];

/** Every requirement that is measured so far, in order. */
export const REQUIREMENTS: readonly Requirement[] = [
  {
    id: 'PP-1',
    level: 'process',
    title: 'no confirmed message is lost',
    sentence:
      'A target MUST deliver every message that it has confirmed at least once, whatever was killed or cut.',
    why: 'A producer that was told yes forgets the message; nobody else has it.',
    source: 'DESIGN 4.5.1, 6; [0017]',
    evidence:
      'Each confirmed id has an accepted delivery to every recipient, or was refused for good by the receiver, or was ' +
      'damaged on purpose where it was stored.',
    needs: 'any',
    byChance: false,
    claimed: always,
  },
  {
    id: 'PP-2',
    level: 'process',
    title: 'duplicates stay bounded',
    sentence:
      'A target MUST NOT deliver a message again that was consumed with an answer, beyond the bound that it claims.',
    why: 'At least once is easy for a queue that sends everything again for ever; receivers pay for it.',
    source: 'DESIGN 4.5.2, 5; [0018, 0026]',
    evidence:
      'Second deliveries to the same recipient after a consumption that the target knew of, counted per crash; those in ' +
      'delivery at the crash are counted apart.',
    needs: 'any',
    byChance: false,
    claimed: ({ guarantee }) => guarantee.duplicatesPerCrash !== 'unbounded',
  },
  {
    id: 'PP-3',
    level: 'process',
    title: 'a rejected message is never delivered',
    sentence: 'A target MUST NOT deliver a message that it has rejected.',
    why: 'A producer that was told no sends the message elsewhere, or tells a person that it failed.',
    source: 'DESIGN 4.5.3',
    evidence: 'No delivery carries the id of a submit that was answered with a rejection.',
    needs: ['full'],
    byChance: false,
    claimed: always,
  },
  {
    id: 'PP-4',
    level: 'process',
    title: 'messages are delivered intact',
    sentence: 'A target MUST deliver, byte for byte, what was submitted.',
    why: 'A queue that changes messages is worse than one that loses them, for nobody notices.',
    source: 'DESIGN 4.5.4',
    evidence:
      'The digest of every delivery equals that of its submit; header lines that a relay adds in front do not count.',
    needs: 'any',
    byChance: false,
    claimed: always,
  },
  {
    id: 'PP-5',
    level: 'process',
    title: 'an indefinite message is whole or absent',
    sentence:
      'A target MUST deliver a message whose submit had no definite outcome either whole or not at all.',
    why: 'A crash within a submit leaves half a message on the disk; recovery must not take it for one.',
    source: 'DESIGN 4.5.3',
    evidence: 'The digest of every delivery of an indefinite id equals that of its submit.',
    needs: 'any',
    byChance: true,
    claimed: always,
  },
  {
    id: 'PP-6',
    level: 'process',
    title: 'nothing is delivered that was never submitted',
    sentence: 'A target MUST NOT deliver anything that was not submitted.',
    why: 'Recovery that reads stale, torn or forged bytes as messages makes mail that nobody wrote.',
    source: 'DESIGN 4.5.3, 4.6; [0026]',
    evidence: 'Every delivery carries an id of this run, and one that was submitted.',
    needs: 'any',
    byChance: false,
    claimed: always,
  },
  {
    id: 'PP-7',
    level: 'errors',
    title: 'a rotten message is named and never delivered',
    sentence:
      'A target MUST notice stored bytes that have rotted, MUST keep the message aside and name it, and MUST NOT deliver it.',
    why: 'Disks do rot; silence about it is loss, and delivery of it is corruption.',
    source: 'DESIGN 4.5.4; [0024, 0025]',
    evidence:
      'No delivery of a message that was damaged on purpose differs from its submit, and the target names at least as many ' +
      'kept aside as are missing.',
    needs: ['data-rot'],
    byChance: false,
    claimed: ({ guarantee }) => guarantee.faults.includes('data-rot'),
  },
  {
    id: 'PP-8',
    level: 'errors',
    title: 'a full queue says no',
    sentence:
      'A target that is full MUST reject with a clear answer, and MUST take messages again when there is room.',
    why: 'Producers can wait or go elsewhere only when they are told; what is lost meanwhile falls under PP-1.',
    source: 'DESIGN 4.5.5; [0029-0033]',
    evidence:
      'Submits were answered with rejections while the queue was full, and with confirmations afterwards.',
    needs: ['full'],
    byChance: false,
    claimed: ({ guarantee }) => guarantee.faults.includes('full'),
  },
  {
    id: 'PP-9',
    level: 'torn',
    title: 'the index equals the data after restore',
    sentence:
      'After restore the index of a target MUST hold exactly the valid records that were not consumed, and MUST be well formed.',
    why: 'An index that is wrong without consequence today loses a message at the next crash.',
    source: 'DESIGN 4.5.6; [0025, 0026]',
    evidence: "The target's own verify command, run after recoveries, finds no problem.",
    needs: RESTARTS,
    byChance: false,
    claimed: ({ verify }) => verify !== undefined,
  },
  {
    id: 'PP-10',
    level: 'process',
    title: 'it recovers',
    sentence: 'A target MUST become ready again after every fault that it claims to survive.',
    why: 'A queue that keeps every message and never starts again has lost them all.',
    source: 'DESIGN 4.4, 5',
    evidence: 'Every restart ended with every service ready.',
    needs: RESTARTS,
    byChance: false,
    claimed: always,
  },
  {
    id: 'PP-11',
    level: 'process',
    title: 'it recovers within the claimed time',
    sentence: 'A target MUST be ready again within the time that it claims.',
    why: 'An outage that grows with the backlog is one that its users have not planned for.',
    source: 'DESIGN 5',
    evidence: 'The longest time from restart to readiness.',
    needs: RESTARTS,
    byChance: false,
    claimed: ({ guarantee }) => guarantee.recoverySeconds !== undefined,
  },
  {
    id: 'PP-12',
    level: 'power',
    title: 'a confirmation outlives a power cut',
    sentence:
      'A target MUST deliver what it had confirmed before the power was cut, though everything that was not flushed is gone.',
    why: 'A confirmation that rests on memory is one until the next power cut, and nothing else shows the difference.',
    source: 'DESIGN 4.5.1, 6, 6.1; [0017, 0042]',
    evidence:
      'Power cuts that hit while confirmed messages were undelivered, and an accepted delivery of each message that was ' +
      'confirmed before one of them.',
    needs: ['power-cut'],
    byChance: false,
    claimed: ({ guarantee }) => guarantee.faults.includes('power-cut'),
  },
  {
    id: 'PP-14',
    level: 'errors',
    title: 'a failed sync is not a confirmation',
    sentence:
      'A target whose sync or write fails MUST NOT confirm what rests on it, and MUST confirm again once it was restarted on a disk that works.',
    why:
      'The kernel reports a failed write once, then takes the page for clean: who asks again is told that all is well, and ' +
      'the data is gone.',
    source: 'DESIGN 4.6, 6; [0017]',
    evidence:
      'Syncs and writes that failed while submits were under way, an accepted delivery of each message that was confirmed ' +
      'before the restart that followed, and confirmations after it.',
    needs: ['io-error'],
    byChance: false,
    claimed: ({ guarantee }) => guarantee.faults.includes('io-error'),
  },
];

/** The family of a fault of any name: `kill-syscall` is a kill, `disk-full` a way of being full. */
export function familyOf(fault: string, families: readonly FaultName[]): FaultName | undefined {
  return families.find(
    (family) => fault === family || fault.startsWith(`${family}-`) || fault.endsWith(`-${family}`),
  );
}

import type { FaultName, Guarantee } from '../target-file/definition.js';

/** What a target of a level survives; `levels.ts` says what each needs. */
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
  'PP-13',
  'PP-14',
  'PP-15',
  'PP-16',
  'PP-17',
  'PP-18',
  'PP-19',
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
  /** What makes the occasion for it: scenarios and faults. */
  scenarios: string;
  /** What of a run shows it. */
  evidence: string;
  /** What looks like evidence and is none. */
  notEvidence: string;
  /** Faults or families of faults, one of which a run must try for this to be in its scope. */
  needs: 'any' | readonly string[];
  /**
   * True when a short run cannot bring the occasion about at will: not measured then says so and leaves the gate's verdict
   * alone. False: a run in whose scope this is, and that has not measured it, has not passed. A level makes no difference.
   */
  byChance: boolean;
  /** True when a target that does not claim this can be given the level all the same, which then says so. */
  waivable: boolean;
  /** Does the target claim it? All that is not optional is claimed by every target. */
  isClaimedBy: (target: { guarantee: Guarantee; verify?: readonly string[] | undefined }) => boolean;
}

const always = () => true;

/** Faults after which a target is started again. */
const FAULTS_WITH_RESTART: readonly string[] = [
  'kill',
  'tear',
  'index-loss',
  'data-rot',
  'power-cut',
  'crash-states',
  'io-error',
];

/** Every requirement, in order. */
export const REQUIREMENTS: readonly Requirement[] = [
  {
    id: 'PP-1',
    level: 'process',
    title: 'no confirmed message is lost',
    sentence:
      'A target MUST deliver every message that it has confirmed at least once, whatever was killed or cut.',
    why: 'A producer that was told yes forgets the message; nobody else has it.',
    source:
      'DESIGN 4.5.1, 6; [0017]; RFC 5321, 6.1; Pillai et al., All File Systems Are Not Created Equal (OSDI 2014)',
    scenarios:
      'Every scenario: a workload of 3 to 8 producers, receivers that are slow, hold back, or refuse, and every fault that the target claims.',
    evidence:
      'Each confirmed id has an accepted delivery to every recipient, or was refused for good by the receiver, or was ' +
      'damaged on purpose where it was stored.',
    notEvidence:
      'A message that was submitted and not confirmed; a message that is still outstanding when the wait for it ended early; a run at whose crashes nothing was confirmed and undelivered.',
    needs: 'any',
    byChance: false,
    waivable: false,
    isClaimedBy: always,
  },
  {
    id: 'PP-2',
    level: 'process',
    title: 'duplicates stay bounded',
    sentence:
      'A target MUST NOT deliver a message again that was consumed with an answer, beyond the bound that it claims.',
    why: 'At least once is easy for a queue that sends everything again for ever; receivers pay for it.',
    source: 'DESIGN 4.5.2, 5; [0018, 0026]; RFC 5321, 4.5.3.2 (a lost answer makes duplicates)',
    scenarios:
      'Every crash while deliveries are under way; receivers that refuse, break the session, or do not answer.',
    evidence:
      'Second deliveries to the same recipient after a consumption that the target knew of, counted per crash; those in ' +
      'delivery at the crash are counted apart.',
    notEvidence:
      'A second delivery of what was in delivery at a crash, or whose consumption was not answered: both may rightly come again.',
    needs: 'any',
    byChance: false,
    waivable: true,
    isClaimedBy: ({ guarantee }) => guarantee.duplicatesPerCrash !== 'unbounded',
  },
  {
    id: 'PP-3',
    level: 'errors',
    title: 'a rejected message is never delivered',
    sentence: 'A target MUST NOT deliver a message that it has rejected.',
    why: 'A producer that was told no sends the message elsewhere, or tells a person that it failed.',
    source: 'DESIGN 4.5.3; RFC 5321, 4.2.1 (a reply of 4yz or 5yz: the requested action did not occur)',
    scenarios: 'The faults full and disk-full: a flood of messages while receivers take nothing.',
    evidence: 'No delivery carries the id of a submit that was answered with a rejection.',
    notEvidence: "A connection that broke instead of an answer: that is indefinite, and PP-5's.",
    needs: ['full'],
    byChance: false,
    waivable: false,
    isClaimedBy: always,
  },
  {
    id: 'PP-4',
    level: 'process',
    title: 'messages are delivered intact',
    sentence: 'A target MUST deliver, byte for byte, what was submitted.',
    why: 'A queue that changes messages is worse than one that loses them, for nobody notices.',
    source: 'DESIGN 4.5.4; Saltzer, Reed and Clark, End-to-End Arguments in System Design (TOCS 1984)',
    scenarios:
      'Every scenario; the workload has empty and large messages, eight-bit bytes, long lines, dots, line ends of every kind, and messages that contain a forged record.',
    evidence:
      'The digest of every delivery equals that of its submit; header lines that a relay adds in front do not count.',
    notEvidence: 'Equal sizes; a digest that the target computes itself.',
    needs: 'any',
    byChance: false,
    waivable: false,
    isClaimedBy: always,
  },
  {
    id: 'PP-5',
    level: 'process',
    title: 'an indefinite message is whole or absent',
    sentence:
      'A target MUST deliver a message whose submit had no definite outcome either whole or not at all.',
    why: 'A crash within a submit leaves half a message on the disk; recovery must not take it for one.',
    source: 'DESIGN 4.5.3; Jepsen (indeterminate operations)',
    scenarios: 'Producers that hang up within a submit, and crashes that cut submits short.',
    evidence: 'The digest of every delivery of an indefinite id equals that of its submit.',
    notEvidence: 'An indefinite message that never came: absence is allowed, and shows nothing.',
    needs: 'any',
    byChance: true,
    waivable: false,
    isClaimedBy: always,
  },
  {
    id: 'PP-6',
    level: 'process',
    title: 'nothing is delivered that was never submitted',
    sentence: 'A target MUST NOT deliver anything that was not submitted.',
    why: 'Recovery that reads stale, torn or forged bytes as messages makes mail that nobody wrote.',
    source: 'DESIGN 4.5.3, 4.6; [0026]',
    scenarios:
      "Every scenario; the workload holds messages with a forged record at a record's place, which a recovery must not take for one.",
    evidence: 'Every delivery carries an id of this run, and one that was submitted.',
    notEvidence: 'A delivery that the kit cannot tie to this run is a violation, not noise.',
    needs: 'any',
    byChance: false,
    waivable: false,
    isClaimedBy: always,
  },
  {
    id: 'PP-7',
    level: 'errors',
    title: 'a rotten message is named and never delivered',
    sentence:
      'A target MUST notice stored bytes that have rotted, MUST keep the message aside and name it, and MUST NOT deliver it.',
    why: 'Disks do rot; silence about it is loss, and delivery of it is corruption.',
    source:
      'DESIGN 4.5.4; [0024, 0025]; Bairavasundaram et al., An Analysis of Data Corruption in the Storage Stack (FAST 2008)',
    scenarios:
      'The fault data-rot: with the target down, bits are flipped in stored messages that were confirmed.',
    evidence:
      'No delivery of a message that was damaged on purpose differs from its submit, and the target names at least as many ' +
      'kept aside as are missing.',
    notEvidence:
      'A flip in bytes that hold no message; a message that came intact because it was read before.',
    needs: ['data-rot'],
    byChance: false,
    waivable: true,
    isClaimedBy: ({ guarantee }) => guarantee.faults.includes('data-rot'),
  },
  {
    id: 'PP-8',
    level: 'errors',
    title: 'a full queue says no',
    sentence:
      'A target that is full MUST reject with a clear answer, and MUST take messages again when there is room.',
    why: 'Producers can wait or go elsewhere only when they are told; what is lost meanwhile falls under PP-1.',
    source: 'DESIGN 4.5.5; [0029-0033]; RFC 5321, 4.2.2 (452)',
    scenarios:
      'The fault full (receivers hold back while producers flood) and the fault disk-full (the filesystem shrinks to what is in use).',
    evidence:
      'Submits were answered with rejections while the queue was full, and with confirmations afterwards.',
    notEvidence:
      'Time-outs and broken connections; a target that has so much room that nothing was rejected.',
    needs: ['full'],
    byChance: false,
    waivable: false,
    isClaimedBy: ({ guarantee }) => guarantee.faults.includes('full'),
  },
  {
    id: 'PP-9',
    level: 'torn',
    title: 'the index equals the data after restore',
    sentence:
      'After restore the index of a target MUST hold exactly the valid records that were not consumed, and MUST be well formed.',
    why: 'An index that is wrong without consequence today loses a message at the next crash.',
    source: 'DESIGN 4.5.6; [0025, 0026]',
    scenarios:
      "The target's `verify` command after recoveries from kills, tears, index damage and power cuts.",
    evidence: "The target's own verify command, run after recoveries, finds no problem.",
    notEvidence:
      'An inspection before the first recovery; a target that has no such command is not measured.',
    needs: FAULTS_WITH_RESTART,
    byChance: false,
    waivable: true,
    isClaimedBy: ({ verify }) => verify !== undefined,
  },
  {
    id: 'PP-10',
    level: 'process',
    title: 'it recovers',
    sentence: 'A target MUST become ready again after every fault that it claims to survive.',
    why: 'A queue that keeps every message and never starts again has lost them all.',
    source: 'DESIGN 4.4, 5; Candea and Fox, Crash-Only Software (HotOS 2003)',
    scenarios: 'Every fault that stops a process.',
    evidence: 'Every restart ended with every service ready.',
    notEvidence: 'A start that was the first of all; a service that was never down.',
    needs: FAULTS_WITH_RESTART,
    byChance: false,
    waivable: false,
    isClaimedBy: always,
  },
  {
    id: 'PP-11',
    level: 'process',
    title: 'it recovers within the claimed time',
    sentence: 'A target MUST be ready again within the time that it claims.',
    why: 'An outage that grows with the backlog is one that its users have not planned for.',
    source: 'DESIGN 5',
    scenarios:
      'Every fault that stops a process; the clock runs from the start of the first service to the readiness of the last.',
    evidence: 'The longest time from restart to readiness.',
    notEvidence:
      'Runs in a virtual machine without hardware support, where time says nothing about the target.',
    needs: FAULTS_WITH_RESTART,
    byChance: false,
    waivable: true,
    isClaimedBy: ({ guarantee }) => guarantee.recoverySeconds !== undefined,
  },
  {
    id: 'PP-12',
    level: 'power',
    title: 'a confirmation outlives a power cut',
    sentence:
      'A target MUST deliver what it had confirmed before the power was cut, though everything that was not flushed is gone.',
    why: 'A confirmation that rests on memory is one until the next power cut, and nothing else shows the difference.',
    source:
      'DESIGN 4.5.1, 6, 6.1; [0017, 0042]; Zheng et al., Understanding the Robustness of SSDs under Power Fault (FAST 2013)',
    scenarios:
      'The fault power-cut, by either backend: right after the install, under load, and during recovery.',
    evidence:
      'Power cuts that hit while confirmed messages were undelivered, and an accepted delivery of each message that was ' +
      'confirmed before one of them.',
    notEvidence: 'A SIGKILL, however many processes it ends: the kernel still writes what they had written.',
    needs: ['power-cut'],
    byChance: false,
    waivable: false,
    isClaimedBy: ({ guarantee }) => guarantee.faults.includes('power-cut'),
  },
  {
    id: 'PP-13',
    level: 'crash-states',
    title: 'every crash state holds what was confirmed',
    sentence:
      'A target MUST recover on every disk that a power cut may leave, and hold there each message that it had confirmed before, and none that was never submitted.',
    why:
      'Between two flushes a drive writes what it likes in the order it likes; a queue that relies on an order it never asked ' +
      'for loses messages at one cut in thousands.',
    source:
      'DESIGN 6, 6.1; [0017, 0025, 0026]; Pillai et al., All File Systems Are Not Created Equal (OSDI 2014); Mohan et al., CrashMonkey (OSDI 2018)',
    scenarios:
      'One run is recorded below the filesystem; of the disks that its log allows (every prefix, all writes of an epoch but one, only one, ' +
      'torn ones, seeded subsets, and cuts during recovery) each is made and recovered from.',
    evidence:
      'Recovered crash states with messages at risk: those whose confirmation had come when no more of the log was complete than at ' +
      'the cut, and that no receiver had been offered by then; what the target then held; and that it recovered in all others.',
    notEvidence: 'States before the first confirmation; states equal to one that was looked at already.',
    needs: ['crash-states'],
    byChance: false,
    waivable: false,
    isClaimedBy: ({ guarantee }) => guarantee.faults.includes('crash-states'),
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
    scenarios:
      'The fault io-error: with strace, chosen msync, fsync, fdatasync and write calls of a service fail with EIO or ENOSPC, and all is killed; ' +
      'or, on a disk behind dm-flakey, every write of the disk fails with EIO, and all is killed and the disk mounted again.',
    evidence:
      'Syncs and writes that failed while submits were under way, an accepted delivery of each message that was confirmed ' +
      'before the restart that followed, and confirmations after it.',
    notEvidence: 'An error while nothing was under way; a call whose result confirms nothing.',
    needs: ['io-error'],
    byChance: false,
    waivable: false,
    isClaimedBy: ({ guarantee }) => guarantee.faults.includes('io-error'),
  },
  {
    id: 'PP-15',
    level: 'process',
    title: 'an interrupted recovery loses nothing',
    sentence:
      'A target that is killed while it recovers MUST deliver what it had confirmed before, once it has recovered at last.',
    why: 'A recovery that changes the stored state in place makes the next one work on something that no run has left.',
    source: 'DESIGN 4.4 (restoring twice gives the same as once), 6; Mohan et al., ARIES (TODS 1992)',
    scenarios:
      'The fault kill-recovery: all processes are killed, and again, up to three times, while they start.',
    evidence:
      'Recoveries that were interrupted while confirmed messages were undelivered, and an accepted delivery of each message ' +
      'that was confirmed before one of them.',
    notEvidence: 'A single kill, however often it is repeated between complete recoveries.',
    needs: ['kill-recovery'],
    byChance: true,
    waivable: false,
    isClaimedBy: ({ guarantee }) => guarantee.faults.includes('kill'),
  },
  {
    id: 'PP-16',
    level: 'torn',
    title: 'damaged unsynced bytes cost nothing',
    sentence:
      'A target MUST deliver what it had confirmed, though any sectors that it had written and not synced hold what they held before.',
    why: 'A crash leaves some sectors of a write and not others; a recovery that trusts the first whole header loses what lies behind.',
    source: 'DESIGN 4.5.1, 6; [0024-0026]; Pillai et al., All File Systems Are Not Created Equal (OSDI 2014)',
    scenarios:
      'The fault tear: strace tells which ranges were synced, and of all others a seeded choice of sectors is put back.',
    evidence:
      'Tears that changed bytes while confirmed messages were undelivered, and an accepted delivery of each message that was ' +
      'confirmed before one of them.',
    notEvidence:
      'A moment at which everything was synced: then there is nothing to tear, and the fault is a miss.',
    needs: ['tear'],
    byChance: true,
    waivable: false,
    isClaimedBy: ({ guarantee }) => guarantee.faults.includes('tear'),
  },
  {
    id: 'PP-17',
    level: 'torn',
    title: 'a lost index costs nothing',
    sentence:
      'A target MUST deliver what it had confirmed, though its index is missing, empty, truncated, older, or garbage.',
    why: 'An index is synced seldom or never; whatever a crash leaves of it must not decide what is delivered.',
    source: 'DESIGN 4.4, 4.5.2, 6; [0018, 0025, 0026]',
    scenarios:
      'The fault index-loss: with the target down its index files are removed, emptied, truncated, changed, or replaced by old copies.',
    evidence:
      'Damage that hit while confirmed messages were undelivered, and an accepted delivery of each message that was confirmed ' +
      'before it.',
    notEvidence: 'Damage to files that hold messages, which is the matter of PP-7.',
    needs: ['index-loss'],
    byChance: true,
    waivable: true,
    isClaimedBy: ({ guarantee }) => guarantee.faults.includes('index-loss'),
  },
  {
    id: 'PP-18',
    level: 'errors',
    title: 'a jump of the clock costs nothing',
    sentence: 'A target MUST deliver what it had confirmed, though the wall clock jumps forward or back.',
    why: 'Order by date makes the newest record look oldest after the clock was set back; expiry by date drops what is an hour old.',
    source:
      'DESIGN 4.6 (order is not time), 6; Lamport, Time, Clocks, and the Ordering of Events (CACM 1978)',
    scenarios:
      'The fault clock: services are started with a wall clock that is wrong, which then jumps, up to 90 days either way; the ' +
      'monotonic clock is left alone.',
    evidence:
      'Jumps that reached a process while confirmed messages were undelivered, and an accepted delivery of each message that was ' +
      'confirmed before one of them.',
    notEvidence: 'A program that does not load the library which moves its clock.',
    needs: ['clock'],
    byChance: true,
    waivable: false,
    isClaimedBy: ({ guarantee }) => guarantee.faults.includes('clock'),
  },
  {
    id: 'PP-19',
    level: 'errors',
    title: 'a full disk costs nothing',
    sentence:
      'A target whose disk has no room left MUST deliver what it has confirmed, before and meanwhile, though it is then killed.',
    why: 'Who ignores ENOSPC confirms from memory; the next crash shows it.',
    source:
      'DESIGN 4.5.5, 6; Rebello et al., Can Applications Recover from fsync Failures? (USENIX ATC 2020)',
    scenarios:
      'The fault disk-full: the filesystem shrinks to what is in use, producers flood it, and all processes are killed while nothing ' +
      'has been taken from the target.',
    evidence:
      'Disks that were full while confirmed messages were undelivered, and an accepted delivery of each message that was confirmed ' +
      'before the kill.',
    notEvidence: 'A filesystem that had room left; messages that were confirmed after it had room again.',
    needs: ['disk-full'],
    byChance: true,
    waivable: false,
    isClaimedBy: ({ guarantee }) => guarantee.faults.includes('full'),
  },
];

/** The family of a fault of any name: `kill-syscall` is a kill, `disk-full` a way of being full. */
export function familyOf(fault: string, families: readonly FaultName[]): FaultName | undefined {
  return families.find(
    (family) => fault === family || fault.startsWith(`${family}-`) || fault.endsWith(`-${family}`),
  );
}

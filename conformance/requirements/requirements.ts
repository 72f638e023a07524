import type { FaultName, Guarantee } from '../target-file/definition.js';

/** Name of a set of requirements that a certificate can grant; `levels.ts` has the rules. */
export type Level = 'process' | 'torn' | 'power' | 'crash-states' | 'errors' | 'cluster';

/** Ids of all requirements, in numerical order. */
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
  'PP-20',
  'PP-21',
  'PP-22',
  'PP-23',
  'PP-24',
] as const;

/** Id of a requirement. */
export type RequirementId = (typeof REQUIREMENT_IDS)[number];

/** One numbered requirement of SPEC.md; the document is generated from these fields. */
export interface Requirement {
  id: RequirementId;
  level: Level;
  /** A few words, for tables. */
  title: string;
  /** One sentence in the words of RFC 2119. */
  sentence: string;
  /** The harm that a violation does. */
  why: string;
  /** Patent paragraph, claim, RFC section, paper or target-file key that the requirement comes from. */
  source: string;
  /** Scenarios and faults that create the situation in which the requirement can be violated. */
  scenarios: string;
  /** Observations in a history that show that the requirement holds. */
  evidence: string;
  /** Observations that look like evidence and prove nothing. */
  notEvidence: string;
  /** Faults or families of faults. The requirement is in the scope of a run that tries one of them. */
  needs: 'any' | readonly string[];
  /**
   * True when a short run cannot force the situation. A run that then did not measure the requirement reports
   * this and keeps its verdict. False: a run that has the requirement in its scope and did not measure it does
   * not pass. For the grant of a level the field makes no difference.
   */
  byChance: boolean;
  /**
   * True when a target that does not claim the requirement can still get the level. The grant then names the
   * requirement.
   */
  waivable: boolean;
  /**
   * Returns whether a target claims the requirement. Every target claims the requirements that are not
   * optional.
   */
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
  'cut-then-elect',
  'node-loss',
];

/** Faults that cut the links between nodes, or make them slow. */
const LINK_FAULTS: readonly FaultName[] = ['partition', 'stale-link', 'link-delay', 'link-loss'];

/** Makes a test: whether a target is a cluster that tolerates enough failed nodes, and claims to survive one of these faults. */
const inCluster =
  (faults: readonly FaultName[], leastTolerated = 0): Requirement['isClaimedBy'] =>
  ({ guarantee }) =>
    (guarantee.cluster?.tolerates ?? -1) >= leastTolerated &&
    faults.some((fault) => guarantee.faults.includes(fault));

/** Every requirement, in numerical order. */
export const REQUIREMENTS: readonly Requirement[] = [
  {
    id: 'PP-1',
    level: 'process',
    title: 'no confirmed message is lost',
    sentence:
      'A target MUST deliver at least once each message that it has confirmed, after every fault that it claims to survive.',
    why: 'A producer that got a confirmation forgets the message. The target then holds the only copy.',
    source:
      '[0017]; claim 1 (the confirmation follows the write); RFC 5321, section 6.1; Pillai et al., All File Systems Are Not Created Equal (OSDI 2014)',
    scenarios:
      'Every scenario: 3 to 8 producers; receivers that are slow, that answer late, or that refuse messages; every fault that the target claims to survive.',
    evidence:
      'Every recipient of each confirmed message accepted it. Two kinds of messages are exempt: those that a receiver refused permanently, and those whose stored bytes the kit damaged on purpose. [When a message counts as lost](#when-a-message-counts-as-lost) says how long the kit waits.',
    notEvidence:
      'A message that was submitted and not confirmed. A missing message, if the target had not recovered when the final wait ended, if the wait reached its limit while other deliveries still came, or if the target may only be late. A run in which no message was at risk at any crash.',
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
      'A target MUST NOT deliver a message again after it knew that the message was consumed, except as often as its claimed bound allows.',
    why: 'At-least-once delivery is easy for a queue that sends everything again for ever. Receivers pay for the duplicates.',
    source: '[0018, 0026]; RFC 5321, sections 4.5.3.2.6 and 6.1 (a lost answer causes duplicates)',
    scenarios: 'Every crash during deliveries; receivers that refuse, break the session, or do not answer.',
    evidence:
      'The number of duplicates per crash. [What counts as a duplicate](#what-counts-as-a-duplicate) says when the target knew of a consumption, and when a message was in delivery. A second delivery of a message that was in delivery at a crash is counted separately.',
    notEvidence:
      'A second delivery of a message that was in delivery at a crash, or whose consumption the target did not answer. Both are allowed.',
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
    why: 'A producer that got a rejection sends the message elsewhere, or reports to a person that it failed.',
    source: 'RFC 5321, section 4.2.1 (after a reply of 4yz or 5yz the requested action did not occur)',
    scenarios: 'The faults full and disk-full: producers flood the target while receivers accept nothing.',
    evidence: 'No delivery carries the id of a rejected submit.',
    notEvidence: 'A connection that broke before the answer. That outcome is indefinite, and PP-5 covers it.',
    needs: ['full'],
    byChance: false,
    waivable: false,
    isClaimedBy: always,
  },
  {
    id: 'PP-4',
    level: 'process',
    title: 'messages are delivered intact',
    sentence: 'A target MUST deliver each message byte for byte as it was submitted.',
    why: 'A changed message is worse than a lost one, because nobody notices it.',
    source: 'Saltzer, Reed and Clark, End-to-End Arguments in System Design (TOCS 1984)',
    scenarios:
      'Every scenario. The workload has messages of a few bytes and of several MiB, eight-bit and binary bytes, lines of the greatest length that RFC 5322 allows, lines of dots, and many recipients. Some messages contain forged records: bytes in the format in which the reference queue stores a message.',
    evidence:
      'The digest of every delivery equals the digest of its submit. Header lines that a relay adds in front are ignored. If the target claims `headers: "may-be-completed"`, an added Message-ID or Date that the message did not have, and folds in lines of more than 998 bytes with their line end, are ignored too. A delivery whose id cannot be read belongs to the message that the protocol names beside the body.',
    notEvidence: 'The fact that both messages have the same size. A digest that the target computes itself.',
    needs: 'any',
    byChance: false,
    waivable: false,
    isClaimedBy: always,
  },
  {
    id: 'PP-5',
    level: 'process',
    title: 'an indefinite message is whole or absent',
    sentence: 'A target MUST deliver a message with an indefinite outcome either whole or not at all.',
    why: 'A producer that hangs up leaves half a message in memory, and a crash during a submit half a message on the disk. The target must not take it for a message.',
    source:
      'Maelstrom, doc/protocol.md, section Errors (definite and indefinite errors), https://github.com/jepsen-io/maelstrom',
    scenarios: 'Producers that hang up during a submit; crashes that interrupt submits.',
    evidence: 'The digest of every delivery of an indefinite message equals the digest of its submit.',
    notEvidence: 'An indefinite message that was never delivered. Absence is allowed and proves nothing.',
    needs: 'any',
    byChance: true,
    waivable: false,
    isClaimedBy: always,
  },
  {
    id: 'PP-6',
    level: 'process',
    title: 'nothing is delivered that was never submitted',
    sentence: 'A target MUST NOT deliver a message that was never submitted.',
    why: 'A recovery that takes old, torn or forged bytes for a message delivers mail that no producer wrote.',
    source: '[0026]',
    scenarios:
      'Every scenario. Some messages of the workload are full of forged records (see PP-4). Wherever the reference queue stores such a message, one forged record starts at a position at which a real record could start. A recovery must not deliver it. Over smtp the records have no NUL bytes, because 8bit data must not contain them (RFC 2045, section 2.8).',
    evidence: 'Every delivery carries the id of a message that was submitted in this run.',
    notEvidence: 'Nothing is exempt. A delivery that carries no id of this run is a violation.',
    needs: 'any',
    byChance: false,
    waivable: false,
    isClaimedBy: always,
  },
  {
    id: 'PP-7',
    level: 'errors',
    title: 'a corrupted message is reported, not delivered',
    sentence:
      'A target MUST detect stored bytes that were corrupted, MUST keep the message aside and report it, and MUST NOT deliver it.',
    why: 'Disks corrupt stored bytes. Silence about it is loss, and delivery of it is corruption.',
    source:
      '[0024, 0026] (the checksum of each entry); Bairavasundaram et al., An Analysis of Data Corruption in the Storage Stack (FAST 2008)',
    scenarios:
      'The fault data-rot: while the target is down, the kit flips bits in stored messages that were confirmed.',
    evidence:
      'Every delivery of a message that the kit damaged equals its submit. The `verify` command of the target reports the number of messages that it kept aside. This number is at least the number of damaged messages that did not arrive.',
    notEvidence:
      'A flip in bytes that hold no message. A message that arrived intact because the target had read it before the damage.',
    needs: ['data-rot'],
    byChance: false,
    waivable: true,
    isClaimedBy: ({ guarantee }) => guarantee.faults.includes('data-rot'),
  },
  {
    id: 'PP-8',
    level: 'errors',
    title: 'a full queue rejects with a clear answer',
    sentence:
      'A target that is full MUST reject with a clear answer, and MUST accept messages again when it has free space.',
    why: 'Producers can wait or go elsewhere only if they get a rejection. PP-1 covers messages that are lost meanwhile.',
    source: '[0017, 0028-0033]; RFC 5321, section 4.2.2 (reply 452)',
    scenarios:
      'The fault full: receivers answer nothing while producers flood the target. The fault disk-full: the filesystem shrinks to 64 KiB more than the bytes in use while producers flood the target.',
    evidence: 'Submits were rejected while the queue was full, and were confirmed afterwards.',
    notEvidence:
      'Timeouts and broken connections. A target with so much free space that it rejected nothing. A target that ends when its disk is full: PP-10 judges its recovery, and PP-19 its messages.',
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
      'After a restore the index of a target MUST hold exactly the valid records that were not consumed, and MUST be well formed.',
    why: 'A wrong index may do no harm until the next crash. That crash then loses a message.',
    source: '[0025, 0026]',
    scenarios:
      "The target's `verify` command, run after recoveries from kills, tears, index damage and power cuts.",
    evidence: "The target's own `verify` command, run after recoveries, reports no problem.",
    notEvidence:
      'An inspection without a problem before the first recovery. A target without a `verify` command does not claim this requirement.',
    needs: FAULTS_WITH_RESTART,
    byChance: false,
    waivable: true,
    isClaimedBy: ({ verify }) => verify !== undefined,
  },
  {
    id: 'PP-10',
    level: 'process',
    title: 'the target recovers',
    sentence: 'A target MUST become ready again after every fault that it claims to survive.',
    why: 'A queue that keeps every message and never starts again has lost them all.',
    source: '[0017, 0021]; Candea and Fox, Crash-Only Software (HotOS 2003)',
    scenarios: 'Every fault that stops a process.',
    evidence: 'Every service became ready after every restart.',
    notEvidence: 'The first start of the run. A service that was never down.',
    needs: FAULTS_WITH_RESTART,
    byChance: false,
    waivable: false,
    isClaimedBy: always,
  },
  {
    id: 'PP-11',
    level: 'process',
    title: 'the target recovers within the claimed time',
    sentence: 'A target MUST be ready again within the recovery time that it claims.',
    why: 'Users plan for the claimed outage. An outage that grows with the backlog breaks their plan.',
    source: 'The claim in the target file: `guarantee.recoverySeconds`',
    scenarios:
      'Every fault that stops a process. The time runs from the start of the first service to the readiness of the last.',
    evidence: 'The longest time from restart to readiness.',
    notEvidence:
      'Runs in a virtual machine without hardware support, because their times do not describe the target.',
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
      'A target MUST deliver each message that it confirmed before a power cut, although everything that was not flushed is gone.',
    why: 'A confirmation that rests on memory holds only until the next power cut, and nothing but a power cut shows it.',
    source:
      '[0017, 0042]; claim 1; Zheng et al., Understanding the Robustness of SSDs under Power Fault (FAST 2013)',
    scenarios:
      'The fault power-cut: right after the install, under load, and during recovery. One of two [power backends](../faults/README.md#power-backends) makes the cut, `blocklog` or `flakey`.',
    evidence:
      'Power cuts hit while messages were at risk. Each message that was confirmed before such a cut has an accepted delivery.',
    notEvidence:
      'A SIGKILL of any number of processes: the kernel still writes what they had written. A cut of a target that keeps its messages elsewhere: messages were confirmed, and nothing in `{data}` changed meanwhile. A cut before which nothing changed since the last fault that hit. These two kinds of cuts are misses.',
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
      'A target MUST recover on every disk that a power cut can leave, and MUST hold there each message that it had confirmed before the cut, and none that was never submitted.',
    why: 'Between two flushes a drive writes blocks in any order. A queue that relies on an order that it did not request loses messages at one cut in thousands.',
    source:
      '[0017, 0025, 0026]; Pillai et al., All File Systems Are Not Created Equal (OSDI 2014); Mohan et al., CrashMonkey (OSDI 2018)',
    scenarios:
      'One run is recorded below the filesystem: a log has an entry for each write and each flush. The kit makes the disks that a power cut could have left at each point of this log. Of the unflushed writes, such a disk lacks none, all, one, all but one, or a seeded choice. Some writes are torn. The target recovers on each disk. Some recoveries are cut too. [Crash states](../faults/README.md#crash-states) describes the model.',
    evidence:
      'Crash states with messages at risk, and the messages that the target held there after its recovery. A message is at risk in a state if it was confirmed before the cut, and if no receiver was offered it before the cut. The time of a confirmation or offer is the number of log entries that were complete. In a state without a message at risk, the target must recover and must hold no message that was never submitted. States with equal disks share one inspection, and every one of them is counted.',
    notEvidence:
      'A state before the first confirmation. A recording in which messages were confirmed while nothing in `{data}` changed: the target keeps its messages elsewhere. Without a violation, fewer than 20 states of the run, 10 states with messages at risk, 10 different positions of the cut, or 3 families of states: so few states prove little about a log with thousands of cuts.',
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
      'A target whose sync or write fails MUST NOT confirm messages that depend on it, and MUST confirm again after a restart on a working disk.',
    why: 'The kernel reports a failed write once and then treats the page as clean. A process that syncs again gets a success, and the data is gone.',
    source:
      '[0017]; claim 1; Rebello et al., Can Applications Recover from fsync Failures? (USENIX ATC 2020)',
    scenarios:
      'The fault io-error, in one of two ways. With strace: chosen msync, fsync, fdatasync and write calls of a service fail with EIO or ENOSPC, and then all processes are killed. With dm-flakey below the filesystem: every write to the disk fails with EIO, then all processes are killed, and the disk is mounted again.',
    evidence:
      'Syncs or writes failed while submits were under way or messages were at risk. Each message that was confirmed before the restart has an accepted delivery. After the restart the target confirmed messages.',
    notEvidence:
      'An error while no submit was under way and no message was at risk. A failed call on which no confirmation depends. Errors of a disk on which nothing changed while messages were confirmed.',
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
      'A target that is killed during its recovery MUST deliver, once a later recovery has completed, each message that it had confirmed before.',
    why: 'A recovery that changes the stored state in place leaves the next recovery a state that no normal run produces.',
    source: 'Mohan et al., ARIES (TODS 1992) (repeating a restart gives the same result as one restart)',
    scenarios:
      'The fault kill-recovery: all processes are killed. While they start again, they are killed again, one to three times.',
    evidence:
      'Recoveries were interrupted while messages were at risk. Each message that was confirmed before such an interruption has an accepted delivery.',
    notEvidence: 'Several kills, if a recovery completed between each two of them.',
    needs: ['kill-recovery'],
    byChance: true,
    waivable: false,
    isClaimedBy: ({ guarantee }) => guarantee.faults.includes('kill'),
  },
  {
    id: 'PP-16',
    level: 'torn',
    title: 'damaged unsynced bytes lose no message',
    sentence:
      'A target MUST deliver each message that it had confirmed, even if any of the sectors that were written and not synced hold their old bytes.',
    why: 'A crash leaves some sectors of a write on the disk and not others. So a record can have a new header and an old body. A recovery that trusts this header can misread or skip the records that follow it in the file.',
    source: '[0024-0026]; Pillai et al., All File Systems Are Not Created Equal (OSDI 2014)',
    scenarios:
      'The fault tear: strace records which ranges of the files were synced. In all other ranges that were written, the kit draws sectors by the seed of the run. It puts the old bytes back into these sectors.',
    evidence:
      'Tears changed bytes while messages were at risk. Each message that was confirmed before such a tear has an accepted delivery.',
    notEvidence:
      'A moment at which everything was synced. Then there is nothing to tear, and the fault is a miss. A tear of a target that stored nothing in `{data}` while messages were confirmed.',
    needs: ['tear'],
    byChance: true,
    waivable: false,
    isClaimedBy: ({ guarantee }) => guarantee.faults.includes('tear'),
  },
  {
    id: 'PP-17',
    level: 'torn',
    title: 'a lost index loses no message',
    sentence:
      'A target MUST deliver each message that it had confirmed, although its index is missing, empty, truncated, outdated, or garbage.',
    why: 'An index is synced rarely or never. Delivery must not depend on what a crash leaves of it.',
    source: '[0018, 0025, 0026]',
    scenarios:
      'The fault index-loss: while the target is down, its index files are removed, emptied, truncated, changed, or replaced by old copies.',
    evidence:
      'The index was damaged while messages were at risk. Each message that was confirmed before such damage has an accepted delivery.',
    notEvidence:
      'Damage to files that hold messages. PP-7 covers it. The index of a target that stored nothing in `{data}` while messages were confirmed.',
    needs: ['index-loss'],
    byChance: true,
    waivable: true,
    isClaimedBy: ({ guarantee }) => guarantee.faults.includes('index-loss'),
  },
  {
    id: 'PP-18',
    level: 'errors',
    title: 'a clock jump loses no message',
    sentence:
      'A target MUST deliver each message that it had confirmed, although the wall clock jumps forward or back.',
    why: 'After the clock was set back, an order by date makes the newest record look oldest. After a jump forward, an expiry by date drops messages that are not old.',
    source: 'Lamport, Time, Clocks, and the Ordering of Events in a Distributed System (CACM 1978)',
    scenarios:
      'The fault clock: services start with a wrong wall clock, which then jumps by up to 90 days in either direction. The monotonic clock does not change.',
    evidence:
      'Clock jumps reached a process while messages were at risk. Each message that was confirmed before such a jump has an accepted delivery.',
    notEvidence: 'A jump for a program that did not load libfaketime, the library that changes its clock.',
    needs: ['clock'],
    byChance: true,
    waivable: false,
    isClaimedBy: ({ guarantee }) => guarantee.faults.includes('clock'),
  },
  {
    id: 'PP-19',
    level: 'errors',
    title: 'a full disk loses no message',
    sentence:
      'A target whose disk is full and that is then killed MUST deliver, after a restart, each message that it confirmed before the kill.',
    why: 'A target that ignores ENOSPC confirms from memory. The next crash shows it.',
    source: '[0017]; Rebello et al., Can Applications Recover from fsync Failures? (USENIX ATC 2020)',
    scenarios:
      'The fault disk-full: the filesystem shrinks to 64 KiB more than the bytes in use, and producers flood the target. All processes are killed before receivers have taken a message.',
    evidence:
      'The disk was full while messages were at risk. Each message that was confirmed before the kill has an accepted delivery.',
    notEvidence:
      'A filesystem that had free space left, or on which nothing changed while messages were confirmed. Messages that were confirmed after it had free space again.',
    needs: ['disk-full'],
    byChance: true,
    waivable: false,
    isClaimedBy: ({ guarantee }) => guarantee.faults.includes('full'),
  },
  {
    id: 'PP-20',
    level: 'process',
    title: 'the messages of a producer come in order',
    sentence:
      'A target MUST deliver the confirmed messages of one producer in the order of their submission: if the producer submitted message B after message A was confirmed, the first delivery of A MUST come before the first delivery of B.',
    why: 'A consumer that applies changes in order gets a wrong state without notice. A recovery that reads records from several files, or that puts leased messages behind the others, changes the order.',
    source:
      'The claim in the target file: `guarantee.order`; Lamport, Time, Clocks, and the Ordering of Events (CACM 1978)',
    scenarios:
      'With the claim, each producer submits to one port, and waits for the answer to a message before it submits the next one. The receiver has one connection and takes one message at a time; over smtp the target opens the sessions. Every fault that the target claims to survive.',
    evidence:
      'The order of the first deliveries, as the receiver saw them. At least 10 messages waited at a crash together with an earlier message of their producer, and both were delivered afterwards.',
    notEvidence:
      'Messages that were rejected or have an indefinite outcome, and messages of different producers or rounds: they have no order. Redeliveries: only the first delivery of a message counts, also if the receiver refused it, and of a message to several recipients the first to any of them. A delivery that the receiver did not get completely, because of a kill or a timeout: the message is still undelivered, and a target that delivers later messages before it breaks the order. A lost message: PP-1 counts it. A message that the kit damaged on purpose. The contents of crash states (PP-13): they say nothing about an order.',
    needs: ['kill', 'tear', 'index-loss', 'power-cut'],
    byChance: false,
    waivable: true,
    isClaimedBy: ({ guarantee }) => guarantee.order !== undefined,
  },
  {
    id: 'PP-21',
    level: 'cluster',
    title: 'a confirmation outlives the power cut of tolerated nodes',
    sentence:
      'A cluster MUST deliver each message that it has confirmed after a power cut of as many nodes as it claims to tolerate, whatever majority forms next.',
    why: 'Nodes that confirm from memory lose nothing as long as one of them keeps running. Then the power of the wrong node fails, and a majority of nodes without the message goes on.',
    source:
      'The claim in the target file: `guarantee.cluster`; Ongaro and Ousterhout, In Search of an Understandable Consensus Algorithm (USENIX ATC 2014), section 5 (persistent state); Alagappan et al., Protocol-Aware Recovery for Consensus-Based Storage (FAST 2018)',
    scenarios:
      'The fault cut-then-elect: one node is isolated, the others confirm messages, the power of one of them is cut, and the isolated node and the node that lost its power form the next majority. The fault power-cut on at least one node and on at most as many as the target tolerates.',
    evidence:
      'Such a fault hit, and messages were confirmed during or after it. Each message that was confirmed before or during the fault has an accepted delivery. [Which fault a loss is attributed to](#losses-in-a-cluster) says when a loss counts here.',
    notEvidence:
      'A SIGKILL of nodes: their kernels still write what they had written. A power cut of more nodes than the target tolerates; PP-12 covers it. A schedule in which no majority formed, or in which nothing was confirmed: both are misses.',
    needs: ['cut-then-elect', 'power-cut'],
    byChance: false,
    waivable: true,
    isClaimedBy: inCluster(['cut-then-elect', 'power-cut'], 1),
  },
  {
    id: 'PP-22',
    level: 'cluster',
    title: 'a confirmation outlives the loss of a disk',
    sentence:
      'A cluster MUST deliver each message that it has confirmed, although one node comes back with an empty disk or is replaced by another node.',
    why: 'A disk can fail for ever. A node that comes back empty, and counts as one that has every message, can empty the whole cluster.',
    source:
      'The claim in the target file: `guarantee.cluster`; Liskov and Cowling, Viewstamped Replication Revisited (MIT-CSAIL-TR-2012-021), section 4.3 (recovery of a replica without its disk)',
    scenarios:
      'The fault node-loss: the processes of a node are killed and its disk is replaced by an empty one. If the target has a `promote` command, another node takes over. The fault node-loss-power, if the target claims power-cut as well: at the same instant the power of all other nodes is cut, and they go on from their disks.',
    evidence:
      'A disk was lost, and messages were confirmed during or after it. Each message that was confirmed before or during the fault has an accepted delivery.',
    notEvidence: 'A node whose disk had no message since the last fault.',
    needs: ['node-loss'],
    byChance: false,
    waivable: true,
    isClaimedBy: inCluster(['node-loss'], 1),
  },
  {
    id: 'PP-23',
    level: 'cluster',
    title: 'a cut or stale link costs nothing',
    sentence:
      'A cluster whose links are cut, slow or stale MUST lose no confirmed message, MUST NOT confirm a message on a node that is cut off into a minority, and MUST hold the same on all nodes after the links are healed.',
    why: 'A node that goes on alone confirms messages that the others do not have. After the healing one of the two histories wins, and the other is lost, or messages that were consumed come again.',
    source:
      "The claim in the target file: `guarantee.cluster`; Gilbert and Lynch, Brewer's Conjecture and the Feasibility of Consistent, Available, Partition-Tolerant Web Services (SIGACT News 2002); Alquraan et al., An Analysis of Network-Partitioning Failures in Cloud Systems (OSDI 2018)",
    scenarios:
      'The faults partition (one node isolated, two halves, overlapping majorities, one direction), stale-link, link-delay and link-loss, while producers and receivers reach every node.',
    evidence:
      'Such a fault hit, and messages were confirmed during or after it. Each message that was confirmed before or during the fault has an accepted delivery. No node confirmed a message that was submitted to it while it was [cut off into a minority](#majorities). After the healing and a complete wait for all messages, the `verify` commands of all nodes report the same number of live messages, and no message that was consumed from one node with an answer came again from another node, except as often as the claimed bound on duplicates allows.',
    notEvidence:
      'A submit within 2 s after the kit began to cut, if the kit did not record the end of the change, and a confirmation within 1 s before it recorded the healing. A minority that answers no, or does not answer. A partition across which no connection was tried.',
    needs: LINK_FAULTS,
    byChance: false,
    waivable: false,
    isClaimedBy: inCluster(LINK_FAULTS),
  },
  {
    id: 'PP-24',
    level: 'cluster',
    title: 'the majority confirms again in time',
    sentence:
      'A cluster MUST confirm messages again within `electionSeconds` after a fault that leaves enough nodes up and connected.',
    why: 'A cluster is run to go on when a node fails. One that waits for the lost node is safe, and not available.',
    source: 'The claim in the target file: `guarantee.cluster.electionSeconds`',
    scenarios:
      'Every fault in which the kit takes nodes down or cuts links: partition, cut-then-elect, node-loss. The time runs from each change of the state of the cluster, also from the healing. If no majority is possible without a node that was down before, the claimed `recoverySeconds` are added until it is ready; without this claim nothing is demanded then.',
    evidence:
      'The time from the change until one of [the nodes that must confirm](#majorities) confirms a message that was submitted after the change. At least one such time was measured while other nodes were down or cut off, if the target can go on then.',
    notEvidence:
      'A state that ended before the claimed time was over. A state in which nothing was submitted to these nodes. A confirmation of a message that was submitted before the change.',
    needs: ['partition', 'cut-then-elect', 'node-loss'],
    byChance: false,
    waivable: false,
    isClaimedBy: inCluster(['partition', 'cut-then-elect', 'node-loss']),
  },
];

/**
 * Returns the family of a fault: `kill-syscall` belongs to `kill`, `disk-full` to `full`. Undefined if none
 * fits.
 */
export function familyOf(fault: string, families: readonly FaultName[]): FaultName | undefined {
  return families.find(
    (family) => fault === family || fault.startsWith(`${family}-`) || fault.endsWith(`-${family}`),
  );
}

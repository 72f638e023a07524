import type { Evaluation } from '../../conformance/checkers/evaluate.js';
import { type Loss, lossesOf } from '../../conformance/checkers/losses.js';
import type { HistoryEvent } from '../../conformance/history/events.js';
import { tracesOf } from '../../conformance/history/traces.js';
import { familyOf, REQUIREMENTS } from '../../conformance/requirements/requirements.js';
import { FAULT_NAMES } from '../../conformance/target-file/definition.js';
import type { FileHabit } from '../../faults/tracing/file-habits.js';
import { clusterCauses, withCluster } from './cluster-cause.js';
import { type LossCause, type LossCauseKind, lossCauses } from './loss-causes.js';
import { orderCause } from './order-cause.js';

/** A cause, and the requirements that it violates. */
export interface ViolationCause extends Omit<LossCause, 'kind'> {
  /**
   * `stored-in-part`: the producer of a message hung up while it sent the message, and a part of it was stored.
   * `reordered`: a message came after a later one of its producer.
   * `history-replaced`: no disk lost anything, and after a cut of links the nodes kept another history.
   * `minority-confirmed`: a node confirmed a message while it was cut off from the majority.
   * `no-election`: the nodes that were left did not confirm again in time.
   */
  kind:
    | LossCauseKind
    | 'stored-in-part'
    | 'reordered'
    | 'history-replaced'
    | 'minority-confirmed'
    | 'no-election';
  /** Ids of failed requirements, the one that names the fault first. */
  requirements: string[];
}

/** Requirements that the loss of a confirmed message violates. */
export const LOSS_REQUIREMENTS: ReadonlySet<string> = new Set([
  ...['PP-1', 'PP-12', 'PP-13', 'PP-14', 'PP-15', 'PP-16', 'PP-17', 'PP-18', 'PP-19'],
  ...['PP-21', 'PP-22', 'PP-23'],
]);
/** What the producers of every protocol answer when they hung up by themselves. */
const HUNG_UP = /hung up on purpose/;

/** Names the causes of all violations that the evidence explains: losses, messages that were stored in part, a wrong order. */
export function violationCauses(
  events: readonly HistoryEvent[],
  habits: readonly FileHabit[],
  { findings }: Pick<Evaluation, 'findings'>,
  losses: ReadonlyMap<string, Loss> = lossesOf(events),
): ViolationCause[] {
  const lost = findings
    .filter(({ requirement, verdict }) => verdict === 'fail' && LOSS_REQUIREMENTS.has(requirement))
    .map(({ requirement }) => requirement);
  return [
    ...lossCauses(events, habits, losses).map((cause) => {
      const isAbout = (id: string) => isAboutFault(id, cause.fault?.fault);
      return {
        ...withCluster(events, cause),
        requirements: [...lost.filter(isAbout), ...lost.filter((id) => !isAbout(id))],
      };
    }),
    ...storedInPart(events, findings),
    ...orderCause(events, findings),
    ...clusterCauses(events, findings),
  ];
}

/** Reports whether a requirement is about this fault, such as PP-12 about power cuts. */
function isAboutFault(id: string, fault: string | undefined): boolean {
  const needs = REQUIREMENTS.find((one) => one.id === id)?.needs ?? 'any';
  if (fault === undefined || needs === 'any') return false;
  return needs.includes(familyOf(fault, FAULT_NAMES) ?? fault);
}

/** Reports whether the producer of a message hung up while it sent the message: no fault has made it indefinite. */
export function hungUpOnPurpose(answered: { outcome: string; detail: string } | undefined): boolean {
  return answered?.outcome === 'indefinite' && HUNG_UP.test(answered.detail);
}

/** Names messages that were delivered in part after their producer hung up. */
function storedInPart(events: readonly HistoryEvent[], findings: Evaluation['findings']): ViolationCause[] {
  const failed = findings.find(({ requirement, verdict }) => requirement === 'PP-5' && verdict === 'fail');
  const { byId } = tracesOf(events);
  const parts = [...new Set((failed?.violations ?? []).flatMap(({ id }) => id ?? []))].flatMap((id) => {
    const { submitted, answered, deliveries = [] } = byId.get(id) ?? {};
    const part = deliveries.find(
      ({ delivered }) => submitted !== undefined && delivered.sizeBytes < submitted.sizeBytes,
    )?.delivered;
    if (submitted === undefined || part === undefined || !hungUpOnPurpose(answered)) return [];
    return [{ id, submitted, answered, part }];
  });
  const [first] = parts;
  if (first === undefined) return [];
  const { id, submitted, answered, part } = first;
  const sizes = `${count(part.sizeBytes)} of ${count(submitted.sizeBytes)} bytes`;
  const more = parts.length === 1 ? '' : `; ${parts.length} such messages were delivered in part`;
  const started = events.find((event) => event.kind === 'run-started');
  return [
    {
      kind: 'stored-in-part',
      sentence: `the target stored and delivered a part of message ${id}, whose producer hung up while it sent it: ${sizes}${more}`,
      facts: [
        `${time(submitted.atMs)}  message ${id} is submitted, ${count(submitted.sizeBytes)} bytes`,
        ...(answered === undefined
          ? []
          : [
              `${time(answered.atMs)}  the producer hangs up in the middle of it, as a client that crashes does (the kit does this on purpose)`,
            ]),
        `${time(part.atMs)}  ${sizes} are delivered`,
      ],
      fix: `store a message only when all of its bytes have come${started?.protocol === 'http' ? ' (compare their number with content-length)' : ', or the mark of its end'}; drop the rest of a connection that ends before`,
      file: '',
      service: '',
      messages: parts.map((one) => one.id),
      fault: undefined,
      requirements: ['PP-5'],
    },
  ];
}

function count(bytes: number): string {
  return bytes.toLocaleString('en-US');
}

function time(ms: number): string {
  return `${(ms / 1000).toFixed(3)} s`;
}

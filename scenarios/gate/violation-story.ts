import type { Evaluation } from '../../conformance/checkers/evaluate.js';
import { describeShapes, shapesOf } from '../../conformance/checkers/loss-shape.js';
import { messageEvents } from '../../conformance/checkers/message-events.js';
import { faultOfCrash, orderOf } from '../../conformance/checkers/order.js';
import type { HistoryEvent } from '../../conformance/history/events.js';
import { describeLostBytes, describeLostFile, lossOf } from '../../conformance/history/lost-files.js';
import { clusterStory } from './cluster-cause.js';
import { hungUpOnPurpose, LOSS_REQUIREMENTS, violationCauses } from './violation-causes.js';

/**
 * Describes the violation that the first cause names in a few lines. If it names a message, the lines are the message's submission, its
 * answer, its deliveries, and the injection that mattered: the one that took the message, with the files that it was
 * in, or the first crash after the answer. The story of a lost message ends with that injection. In a
 * cluster, the story also says what was cut and killed, and which nodes confirmed next. The story of a message that came
 * too late (PP-20) has the first delivery of the message that came before it, and the crash that lay between.
 */
export function violationStory(events: readonly HistoryEvent[], { findings }: Evaluation): string[] {
  const violation = violationToTell(events, findings);
  if (violation === undefined) return [];
  const { requirement, id, what } = violation;
  if (id === undefined) return [`${requirement}: ${what}`];
  const own = messageEvents(events, id);
  const answered = own.findIndex(({ kind }) => kind === 'answered');
  const loss = lossOf(events, id);
  const order =
    requirement === 'PP-20' ? orderOf(events).overtaken.find(({ message }) => message.id === id) : undefined;
  const hungUp = own.some((event) => event.kind === 'answered' && hungUpOnPurpose(event));
  const reordering = order?.crash === undefined ? undefined : faultOfCrash(events, order.crash);
  const mattered =
    loss?.fault ??
    reordering ??
    (hungUp ? [] : own)
      .slice(answered + 1)
      .find((event) => event.kind === 'fault' && event.hit && event.scope !== 'none');
  const lines: string[] = [];
  const cluster = clusterStory(events, id, mattered?.kind === 'fault' ? mattered : undefined).filter(
    ({ text }) => !text.startsWith('message '),
  );
  let earlier = order && events[order.by.delivered];
  for (const event of own) {
    if (order !== undefined && earlier !== undefined && event.atMs > earlier.atMs) {
      lines.push(formatLine(earlier, `message ${order.by.id} delivered, which was submitted later`));
      earlier = undefined;
    }
    for (const line of cluster.splice(0, countUntil(cluster, event.atMs)))
      lines.push(formatLine(line, line.text));
    switch (event.kind) {
      case 'submitted':
        lines.push(formatLine(event, `message ${id} submitted, ${event.sizeBytes} bytes`));
        break;
      case 'answered':
        lines.push(
          formatLine(
            event,
            `${event.outcome}${event.node === undefined ? '' : ` by ${event.node}`}: ${event.detail}`,
          ),
        );
        break;
      case 'delivered':
        lines.push(formatLine(event, `delivered, as delivery ${event.sequence}`));
        break;
      case 'refused':
        lines.push(formatLine(event, `refused: ${event.detail}`));
        break;
      case 'fault':
        if (event !== mattered) break;
        lines.push(formatLine(event, `${event.fault} ${event.injection}: ${event.detail}`));
        for (const file of loss?.files ?? []) {
          const lost = [describeLostFile(file), describeLostBytes(file, event)].filter((part) => part !== '');
          lines.push(`${INDENT}the message was in ${lost.join('; ')}`);
        }
        break;
      default:
        break;
    }
  }
  for (const line of cluster) lines.push(formatLine(line, line.text));
  const places = loss === undefined ? [] : placesOfLosses(events, { findings });
  return [...lines, `${INDENT}${requirement}: ${what}`, ...places.map((line) => INDENT + line)];
}

/** Says in a line what each producer lost; none for the loss of a single message, whose place says nothing. */
export function placesOfLosses(
  events: readonly HistoryEvent[],
  { findings }: Pick<Evaluation, 'findings'>,
): string[] {
  const lost = lostIds(findings);
  const places = lost.length < 2 ? '' : describeShapes(shapesOf(events, lost));
  return places === '' ? [] : [places];
}

/** Returns the number of the first lines that belong before a time. */
function countUntil(lines: readonly { atMs: number }[], atMs: number): number {
  const later = lines.findIndex((line) => line.atMs > atMs);
  return later < 0 ? lines.length : later;
}

/** Returns the ids of all messages whose loss violates a requirement. */
function lostIds(findings: Evaluation['findings']): string[] {
  const failed = findings.filter(
    ({ requirement, verdict }) => verdict === 'fail' && LOSS_REQUIREMENTS.has(requirement),
  );
  return [...new Set(failed.flatMap(({ violations }) => violations.flatMap(({ id }) => id ?? [])))];
}

/**
 * Chooses the violation for the printed story. The story must show what the first cause says, so it is about the message
 * that this cause names. Without a cause, the function returns the first violation.
 */
export function violationToTell(
  events: readonly HistoryEvent[],
  findings: Evaluation['findings'],
): { requirement: string; id?: string; what: string } | undefined {
  const all = findings
    .filter(({ verdict }) => verdict === 'fail')
    .flatMap(({ requirement, violations }) => violations.map((one) => ({ requirement, ...one })));
  const example = all.length === 0 ? undefined : violationCauses(events, [], { findings })[0]?.messages[0];
  return all.find(({ id }) => id !== undefined && id === example) ?? all[0];
}

const INDENT = ' '.repeat(13);

function formatLine({ atMs }: { atMs: number }, what: string): string {
  return `${(atMs / 1000).toFixed(3).padStart(9)} s  ${what}`;
}

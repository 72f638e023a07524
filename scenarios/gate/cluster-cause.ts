import { confirmedByMinority } from '../../conformance/checkers/cluster-links.js';
import type { Evaluation } from '../../conformance/checkers/evaluate.js';
import { describeShapes, shapesOf } from '../../conformance/checkers/loss-shape.js';
import {
  connectedGroups,
  describeHarm,
  isHealed,
  isLinkFault,
  listOf,
} from '../../conformance/history/cluster-states.js';
import type {
  Answered,
  ClusterState,
  FaultInjected,
  HistoryEvent,
} from '../../conformance/history/events.js';
import { lostFilesOf } from '../../conformance/history/lost-files.js';
import type { LossCause } from './loss-causes.js';

/** A cause of a violation that only the nodes of a cluster can have. */
export interface ClusterCause extends Omit<LossCause, 'kind'> {
  kind: 'minority-confirmed' | 'no-election';
  /** The failed requirement. */
  requirements: string[];
}

/** A line of a story, at its place in the history. */
export interface StoryLine {
  atMs: number;
  text: string;
  /** True for the line that names the nodes that went on. */
  isNext?: boolean;
}

/**
 * Tells what the nodes of a cluster did around the injection that took a message: which node had confirmed it, what was
 * cut and killed, from which disk it was lost, and which nodes confirmed next. Empty for a target without nodes, and
 * without an injection.
 */
export function clusterStory(
  events: readonly HistoryEvent[],
  id: string,
  fault: FaultInjected | undefined,
): StoryLine[] {
  const nodes = events.find((event) => event.kind === 'installed')?.nodes;
  if (nodes === undefined || fault === undefined) return [];
  const end = events.indexOf(fault);
  const answer = confirmationOf(events, id);
  const states = statesOf(events, fault.injection);
  const lines: StoryLine[] = states.map(({ atMs, ...state }) => ({
    atMs,
    text: isHealed(state) ? 'everything is healed' : describeHarm(state),
  }));
  const by = answer?.node === undefined ? '' : ` by ${answer.node}`;
  if (answer !== undefined) lines.push({ atMs: answer.atMs, text: `message ${id} is confirmed${by}` });
  const held = lostFilesOf(fault).filter(({ messages }) => messages.includes(id));
  for (const { file } of held) {
    // The paths of a cluster begin with the name of the node.
    const node = nodes.find((name) => file.startsWith(`${name}:`) || file.startsWith(`${name}/`));
    const where = node === undefined ? file : file.slice(node.length + 1);
    lines.push({ atMs: fault.atMs, text: `${node ?? 'the crash'} lost it from ${where}` });
  }
  const next = nextMajority(events, nodes, states, answer, end);
  if (next !== undefined) lines.push(next);
  return lines.sort((one, other) => one.atMs - other.atMs);
}

/** Returns the changes that the kit made in an injection, each once. */
function statesOf(events: readonly HistoryEvent[], injection: number): ClusterState[] {
  const states = events.filter(
    (event): event is ClusterState => event.kind === 'cluster-state' && event.injection === injection,
  );
  return states.filter((state, at) => {
    const before = states[at - 1];
    return describeHarm(state) !== (before === undefined ? '' : describeHarm(before));
  });
}

/** Finds the first confirmation after the last change that left nodes out, and names the nodes that were together then. */
function nextMajority(
  events: readonly HistoryEvent[],
  nodes: readonly string[],
  states: readonly ClusterState[],
  lost: Answered | undefined,
  end: number,
): StoryLine | undefined {
  const last = states.findLast((state) => !isHealed(state)) ?? states.at(-1);
  if (last === undefined) return undefined;
  const from = Math.max(events.indexOf(last), lost === undefined ? 0 : events.indexOf(lost));
  const next = events
    .slice(from + 1, end)
    .find(
      (event): event is Answered =>
        event.kind === 'answered' && event.outcome === 'confirmed' && event.node !== undefined,
    );
  if (next?.node === undefined) return undefined;
  const { node } = next;
  const group = connectedGroups(nodes, last).find((one) => one.includes(node)) ?? [node];
  const who = group.length === 1 ? `${node} goes on alone` : `the next majority is ${listOf(group)}`;
  return { atMs: next.atMs, text: `${who}: ${node} confirms message ${next.id}`, isNext: true };
}

/**
 * Adds to the cause of a loss what the nodes did, and what each producer lost. A loss that no file explains, at a fault of
 * links, has a cause of its own: no disk lost anything, so another history of the nodes replaced the one with the message.
 */
export function withCluster<C extends LossCause>(
  events: readonly HistoryEvent[],
  cause: C,
): Omit<C, 'kind'> & { kind: C['kind'] | 'history-replaced' } {
  const [example] = cause.messages;
  const isCluster = events.some((event) => event.kind === 'installed' && event.nodes !== undefined);
  if (example === undefined || !isCluster) return cause;
  const { fault, messages } = cause;
  const story = clusterStory(events, example, fault);
  const places = describeShapes(shapesOf(events, messages));
  // The story says itself when the message was confirmed.
  const facts =
    story.length === 0 ? cause.facts : cause.facts.filter((fact) => !fact.endsWith(' is confirmed'));
  const told = {
    ...cause,
    facts: [
      ...story.map(({ atMs, text }) => `${time(atMs)}  ${text}`),
      ...facts,
      ...(places === '' ? [] : [places]),
    ],
  };
  if (fault === undefined) return told;
  const by = confirmationOf(events, example)?.node;
  const next = story.find(({ isNext }) => isNext)?.text;
  const who = [
    ...(by === undefined ? [] : [`${by} had confirmed message ${example}`]),
    ...(next === undefined ? [] : [next]),
  ];
  const rest = who.length === 0 ? '' : `; ${who.join(', and ')}`;
  if (cause.file !== '' || !isLinkFault(fault.fault))
    return { ...told, sentence: `${cause.sentence}${rest}` };
  const count = `${messages.length} confirmed message${messages.length === 1 ? '' : 's'}`;
  return {
    ...told,
    kind: 'history-replaced',
    sentence: `at ${fault.fault} ${fault.injection} no disk lost anything, and ${count} ${messages.length === 1 ? 'is' : 'are'} gone: after the healing the nodes kept another history${rest}`,
    fix: 'give each leadership an epoch that only grows, store it synced before the first confirmation, and let a node with the older epoch take the history of the newer one',
  };
}

/** Names what a cluster did wrong without the loss of a message: a minority that confirmed, nodes that did not go on. */
export function clusterCauses(
  events: readonly HistoryEvent[],
  findings: Evaluation['findings'],
): ClusterCause[] {
  const failed = (id: string) =>
    findings.find(({ requirement, verdict }) => requirement === id && verdict === 'fail');
  const causes: ClusterCause[] = [];
  const minority = failed('PP-23') === undefined ? [] : confirmedByMinority(events);
  const [first] = minority;
  if (first !== undefined) {
    const { id, node, injection } = first;
    const fault = faultOf(events, injection);
    const more = minority.length === 1 ? '' : `; ${minority.length} messages in all`;
    causes.push({
      ...{ kind: 'minority-confirmed', file: '', service: '', requirements: ['PP-23'], fault },
      sentence: `${node} confirmed message ${id} although it was cut off from the majority${more}`,
      facts: clusterStory(events, id, fault).map(({ atMs, text }) => `${time(atMs)}  ${text}`),
      fix: 'confirm a message only after an answer of a majority to this message, and let a node that reaches no majority say no',
      messages: minority.map((one) => one.id),
    });
  }
  const late = failed('PP-24');
  const [example] = late?.violations ?? [];
  if (late !== undefined && example !== undefined)
    causes.push({
      ...{ kind: 'no-election', file: '', service: '', requirements: ['PP-24'], fault: undefined },
      sentence: example.what,
      facts: late.violations.slice(1).map(({ what }) => what),
      fix: 'let the nodes that are left choose a leader without the others, and give each request between nodes a timeout',
      messages: [],
    });
  return causes;
}

function confirmationOf(events: readonly HistoryEvent[], id: string): Answered | undefined {
  return events.find(
    (event): event is Answered =>
      event.kind === 'answered' && event.id === id && event.outcome === 'confirmed',
  );
}

function faultOf(events: readonly HistoryEvent[], injection: number): FaultInjected | undefined {
  return events.find(
    (event): event is FaultInjected => event.kind === 'fault' && event.injection === injection,
  );
}

function time(ms: number): string {
  return `${(ms / 1000).toFixed(3)} s`;
}

import { type CrashState, formatState, parseState } from '../../../faults/write-log/state.js';

/**
 * What happened to the machine of one node. A `CrashState`: it lost its power, and this is its disk. `live`: only its
 * processes were killed, so its files are as the processes saw them.
 */
export type NodeState = CrashState | 'live';

/** What a failure at one moment may leave of a cluster, and which machines come back. */
export interface ClusterState {
  /** Number of the instant of the recording at which it happened. */
  instant: number;
  /** State of each node by name, in the order of the target file. */
  nodes: ReadonlyMap<string, NodeState>;
  /** The node whose machine does not come back; undefined: all come back. */
  away?: string | undefined;
}

const AWAY = '-';
const LIVE = 'live';
const EXAMPLE = '17/a:812+800-804|b:live';

/**
 * Formats the address of a state, which `parseClusterState` reads: the number of the instant, `/`, and for each node its
 * name, `:` and the address of its disk, or `live` when only its processes were killed; separated by `|`. A `-` before the
 * name of a node says that its machine does not come back. Examples: `17/a:812+800-804|b:640`, `17/-a:812|b:640`.
 */
export function formatClusterState({ instant, nodes, away }: ClusterState): string {
  const parts = [...nodes].map(
    ([name, state]) => `${name === away ? AWAY : ''}${name}:${state === 'live' ? LIVE : formatState(state)}`,
  );
  return `${instant}/${parts.join('|')}`;
}

/** Parses an address that `formatClusterState` made. @throws RangeError with the expected format. */
export function parseClusterState(text: string): ClusterState {
  const slash = text.indexOf('/');
  const instant = /^\d+$/.test(text.slice(0, slash)) ? Number(text.slice(0, slash)) : Number.NaN;
  const nodes = new Map<string, NodeState>();
  let away: string | undefined;
  if (!Number.isSafeInteger(instant)) throw wrong(text);
  for (const part of text.slice(slash + 1).split('|')) {
    const match = /^(-?)([a-z][a-z0-9-]*):(.+)$/.exec(part);
    const [, sign, name, address] = match ?? [];
    if (name === undefined || address === undefined || nodes.has(name)) throw wrong(text);
    if (sign === AWAY && away !== undefined) throw wrong(text);
    if (sign === AWAY) away = name;
    nodes.set(name, address === LIVE ? LIVE : parseState(address));
  }
  return { instant, nodes, ...(away === undefined ? {} : { away }) };
}

function wrong(text: string): RangeError {
  return new RangeError(`${text}: expected the address of a crash state of a cluster, such as ${EXAMPLE}`);
}

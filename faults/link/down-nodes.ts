import type { FaultContext, FaultNode } from '../fault.js';

/**
 * Records that these nodes are about to go down. The round starts them afterwards, and records that. Does nothing for a
 * target without nodes.
 */
export function noteDown({ cluster }: FaultContext, nodes: readonly FaultNode[]): void {
  if (nodes.length > 0) cluster?.noteState({ down: nodes.map(({ name }) => name), cut: [] });
}

/** Records that the kit holds no node down any more. It may be called twice. */
export function noteUp({ cluster }: FaultContext): void {
  cluster?.noteState({ down: [], cut: [] });
}

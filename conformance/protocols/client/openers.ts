import type { Address } from '../address.js';

/** Pause between attempts to connect while the target is down, in ms. */
const RETRY_MS = 20;
/**
 * Pause between attempts to connect to a node of a cluster, in ms. It is longer, because a node that is not the leader may refuse
 * every attempt, and other nodes deliver messages meanwhile.
 */
const NODE_RETRY_MS = 200;

/** Returns the pause before another attempt to connect to a node, in ms. `node` is undefined for a target without `nodes`. */
export function retryPauseMs(node: string | undefined): number {
  return node === undefined ? RETRY_MS : NODE_RETRY_MS;
}

/** One connection that a receiver keeps open. */
export interface Opener<Open> {
  /** Node to which it connects; undefined for a target without `nodes`. */
  node?: string | undefined;
  /** Opens the connection, at the start and again after a break. */
  open: Open;
}

/**
 * Makes the openers of a receiver: `count` for each address.
 * @param openerFor returns the function that opens the connection of this number, from 0, to the address.
 */
export function openersFor<Open>(
  addresses: readonly Address[],
  count: number,
  openerFor: (address: Address, number: number) => Open,
): Opener<Open>[] {
  return addresses.flatMap((address) =>
    Array.from({ length: count }, (_, number) => ({
      node: address.node,
      open: openerFor(address, number),
    })),
  );
}

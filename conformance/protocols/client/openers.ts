import type { Address } from '../address.js';

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

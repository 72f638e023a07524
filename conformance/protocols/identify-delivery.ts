import { withoutCompletions } from './completions.js';
import { type Identity, identify } from './message.js';
import type { ReceiverOptions } from './protocol.js';

/** Result of `identifyDelivery`. */
export interface DeliveryIdentity extends Identity {
  /** The delivered bytes, if they are not an intact message. */
  bytes?: Buffer;
}

/**
 * Reads id and digest of a delivery. An intact message names itself. Of any other bytes, the id that the protocol
 * gives beside the body says which message was delivered changed, if it is the id of a submitted message.
 * @param outsideId id beside the body, such as a header of the answer or the address of a recipient; undefined or
 * null when the protocol gives none.
 */
export function identifyDelivery(
  bytes: Buffer,
  { run, headers, wasSubmitted }: Pick<ReceiverOptions, 'run' | 'headers' | 'wasSubmitted'>,
  outsideId?: string | null,
): DeliveryIdentity {
  const found = identify(bytes, run, headers === 'may-be-completed' ? withoutCompletions : undefined);
  if (found.intact) return found;
  const isKnown = outsideId != null && (wasSubmitted?.(outsideId) ?? true);
  return { ...found, id: isKnown ? outsideId : found.id, bytes };
}

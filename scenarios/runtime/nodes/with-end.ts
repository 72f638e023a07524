import type { NodeNetwork } from './node-network.js';

/**
 * Makes the two last steps of a network a part of which only an asynchronous call removes. The end happens once. `remove` lets
 * it begin and does not wait for it, where nobody has called it before. What then stays is on the list of the run, and `clean`
 * removes it.
 * @param removeNow removes what can be removed at once.
 * @param end removes the rest.
 */
export function withEnd(
  removeNow: () => void,
  end: () => Promise<void>,
): Pick<NodeNetwork, 'remove'> & { end(): Promise<void> } {
  let ended: Promise<void> | undefined;
  const endOnce = () => {
    ended ??= end();
    return ended;
  };
  return {
    end: endOnce,
    remove: () => {
      removeNow();
      endOnce().catch(() => {});
    },
  };
}

import { KitError } from '../../conformance/errors.js';
import type { Target } from '../../conformance/target-file/definition.js';
import { commandLine } from '../host/command-line.js';

/**
 * Rejects a target with nodes.
 * @throws KitError target-unavailable.
 */
export function requireSingleNode({ name, nodes }: Pick<Target, 'name' | 'nodes'>, what: string): void {
  if (nodes === undefined) return;
  throw new KitError(
    'target-unavailable',
    `${name}: ${what} has no form for a target with several nodes yet (use ${commandLine('gate')})`,
  );
}

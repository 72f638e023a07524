import { KitError } from '../../conformance/errors.js';
import type { Target } from '../../conformance/target-file/definition.js';
import { commandLine } from '../host/command-line.js';

/** Returns why an experiment cannot run a target with nodes; undefined for a target without. */
export function whyNotOnNodes({ nodes }: Pick<Target, 'nodes'>, what: string): string | undefined {
  if (nodes === undefined) return undefined;
  return `${what} has no form for a target with several nodes yet (use ${commandLine('gate')})`;
}

/**
 * Rejects a target with nodes.
 * @throws KitError target-unavailable.
 */
export function requireSingleNode(target: Pick<Target, 'name' | 'nodes'>, what: string): void {
  const why = whyNotOnNodes(target, what);
  if (why !== undefined) throw new KitError('target-unavailable', `${target.name}: ${why}`);
}

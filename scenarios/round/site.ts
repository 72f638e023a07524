import { KitError, messageOf } from '../../conformance/errors.js';
import type { Target } from '../../conformance/target-file/definition.js';
import { portNames, submitPorts } from '../../conformance/target-file/placeholders.js';
import { freePort } from '../host/ports.js';
import type { Deployment } from '../runtime/runtime.js';

/** The ports of one target on this machine. */
export interface Ports {
  /** By the name in `{port:name}`. */
  byName: ReadonlyMap<string, number>;
  /** Where messages are submitted. */
  submit: number[];
}

/** Ports that are free now, a different one for each name. */
export async function choosePorts(target: Target): Promise<Ports> {
  const byName = new Map<string, number>();
  for (const name of portNames(target)) byName.set(name, await freePort(new Set(byName.values())));
  return { byName, submit: submitPorts(target).map((name) => byName.get(name) ?? 0) };
}

/**
 * Runs the target's install command.
 * @throws KitError bad-target when it cannot be run, target-unavailable with its last words when it fails.
 */
export async function installTarget(
  deployment: Deployment,
  command: string[],
  timeoutMs: number,
): Promise<void> {
  const result = await deployment.runCommand('install', command, timeoutMs).catch((error: unknown) => {
    // Where it should run there is nothing to run it in: not the command's fault.
    if (error instanceof KitError) throw error;
    throw new KitError('bad-target', `install: cannot be run: ${messageOf(error)}`, { cause: error });
  });
  if (result.code === 0) return;
  const how = result.timedOut
    ? `took longer than ${timeoutMs} ms`
    : `ended with ${result.signal ?? `code ${result.code}`}`;
  const words = `${result.stderr}${result.stdout}`.trim().split('\n').slice(-3).join(' | ');
  throw new KitError('target-unavailable', `the target's install command ${how}: ${words}`);
}

import type { Inspected, Untimed } from '../../conformance/history/events.js';
import type { Deployment } from '../runtime/runtime.js';

const VERIFY_TIMEOUT_MS = 20_000;

/** Asks the target's own `verify` command about its stored state. What it cannot say counts as a problem. */
export async function inspect(
  deployment: Deployment,
  command: readonly string[],
  timeoutMs = VERIFY_TIMEOUT_MS,
): Promise<Untimed<Inspected>> {
  const result = await deployment.runCommand('verify', command, timeoutMs);
  const said = parse(result.stdout);
  if (said !== undefined) return { kind: 'inspected', ...said };
  const how = result.timedOut
    ? `took longer than ${timeoutMs} ms`
    : `ended with ${result.signal ?? `code ${result.code}`}`;
  const words = result.stderr.trim().split('\n').at(-1) ?? '';
  return {
    kind: 'inspected',
    ok: false,
    problems: [`the verify command ${how} and printed no { ok, problems, keptAside, live }: ${words}`],
    keptAside: 0,
    live: 0,
  };
}

function parse(text: string): Omit<Inspected, 'kind' | 'atMs'> | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value !== 'object' || value === null) return undefined;
  const { ok, problems, keptAside, live } = value as Record<string, unknown>;
  if (typeof ok !== 'boolean' || !Array.isArray(problems)) return undefined;
  return { ok, problems: problems.map(String), keptAside: Number(keptAside ?? 0), live: Number(live ?? 0) };
}

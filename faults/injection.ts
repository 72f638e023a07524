import type { CrashScope, FaultContext, Injection, Service } from './fault.js';

/** Upper bound in ms for the exit of a killed process. Only a process that the kernel holds takes longer. */
export const EXIT_TIMEOUT_MS = 10_000;

/** Makes the result of an injection that changed nothing, with the reason. */
export function miss(detail: string, services: string[] = []): Injection {
  return { hit: false, scope: 'none', services, detail, indexDamaged: false, rotted: [], failingMs: 0 };
}

/** Makes the result of an injection that hit. */
export function hit(detail: string, scope: CrashScope, services: readonly string[]): Injection {
  return { hit: true, scope, services: [...services], detail, indexDamaged: false, rotted: [], failingMs: 0 };
}

/** Returns the services that have live processes. */
export function liveServices(context: FaultContext): Service[] {
  return context.services.filter((service) => service.pids().length > 0);
}

/** Kills services and waits until they are gone. Resolves to the names of those that had a process. */
export async function killServices(services: readonly Service[]): Promise<string[]> {
  const counts = await Promise.all(services.map((service) => service.signal('SIGKILL')));
  await Promise.all(services.map((service) => service.waitForExit(EXIT_TIMEOUT_MS)));
  return services.filter((_, index) => (counts[index] ?? 0) > 0).map((service) => service.name);
}

/** Returns the crash scope of a kill: whether no service, some services or all services went down. */
export function scopeOf(killed: readonly string[], context: FaultContext): CrashScope {
  if (killed.length === 0) return 'none';
  const { cluster, services } = context;
  const all = cluster === undefined ? services : cluster.nodes.flatMap((node) => node.services);
  return killed.length === all.length ? 'all-processes' : 'some-processes';
}

/** Returns the nodes of these services as a part of an injection; nothing for a target without nodes. */
export function namesOfHarmed(
  { cluster, nodes }: FaultContext,
  services: readonly string[],
): Pick<Injection, 'nodes'> {
  if (cluster === undefined) return {};
  const harmed = nodes.filter((node) => node.services.some(({ name }) => services.includes(name)));
  return { nodes: harmed.map(({ name }) => name) };
}

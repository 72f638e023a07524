import type { CrashScope, FaultContext, Injection, Service } from './fault.js';

/** Every process that is killed has gone by then, unless the kernel holds it. */
export const EXIT_TIMEOUT_MS = 10_000;

/** An injection that changed nothing, and why. */
export function miss(detail: string, services: string[] = []): Injection {
  return { hit: false, scope: 'none', services, detail, indexDamaged: false, rotted: [], failingMs: 0 };
}

/** An injection that hit. */
export function hit(detail: string, scope: CrashScope, services: readonly string[]): Injection {
  return { hit: true, scope, services: [...services], detail, indexDamaged: false, rotted: [], failingMs: 0 };
}

/** The services that have live processes. */
export function liveServices(context: FaultContext): Service[] {
  return context.services.filter((service) => service.pids().length > 0);
}

/** Kills services and waits until they are gone; resolves to the names of those that had a process. */
export async function killServices(services: readonly Service[]): Promise<string[]> {
  const counts = await Promise.all(services.map((service) => service.signal('SIGKILL')));
  await Promise.all(services.map((service) => service.waitForExit(EXIT_TIMEOUT_MS)));
  return services.filter((_, index) => (counts[index] ?? 0) > 0).map((service) => service.name);
}

/** `some-processes` or `all-processes`, by how many of the services went down. */
export function scopeOf(killed: readonly string[], context: FaultContext): CrashScope {
  if (killed.length === 0) return 'none';
  return killed.length === context.services.length ? 'all-processes' : 'some-processes';
}

import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import type { Availability, CrashScope, Ground, Injection, Random, Service } from './fault.js';

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
export function live(ground: Ground): Service[] {
  return ground.services.filter((service) => service.pids().length > 0);
}

/** Kills services and waits until they are gone; resolves to the names of those that had a process. */
export async function killServices(services: readonly Service[]): Promise<string[]> {
  const counts = await Promise.all(services.map((service) => service.signal('SIGKILL')));
  await Promise.all(services.map((service) => service.exited(EXIT_TIMEOUT_MS)));
  return services.filter((_, index) => (counts[index] ?? 0) > 0).map((service) => service.name);
}

/** `some-processes` or `all-processes`, by how many of the services went down. */
export function scopeOf(killed: readonly string[], ground: Ground): CrashScope {
  if (killed.length === 0) return 'none';
  return killed.length === ground.services.length ? 'all-processes' : 'some-processes';
}

/** A seeded choice of `count` different items, in seeded order. */
export function choose<T>(random: Random, items: readonly T[], count: number): T[] {
  const pool = [...items];
  const chosen: T[] = [];
  while (chosen.length < count && pool.length > 0) chosen.push(...pool.splice(random.int(pool.length), 1));
  return chosen;
}

/** Whole number from `low` to `high`, both included, the small ones as likely as the large ones (log scale). */
export function spread(random: Random, low: number, high: number): number {
  return Math.min(high, Math.floor(low * ((high + 1) / low) ** random.real()));
}

/** The full path of a program, or undefined when it is not on the PATH. */
export function findProgram(name: string): string | undefined {
  for (const folder of (process.env.PATH ?? '').split(delimiter)) {
    const path = join(folder, name);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {}
  }
  return undefined;
}

/** Whether strace is installed; it is not tried here whether the kernel lets it trace. */
export function straceAvailability(): Availability {
  if (findProgram('strace') !== undefined) return { available: true };
  return {
    available: false,
    why: 'strace is not installed',
    remedy: 'install the package strace',
  };
}

export const ALWAYS: Availability = { available: true };

import type { Fault, Ground, Injection, Service } from '../fault.js';
import { hit, miss } from '../injection.js';
import { killAt } from '../process/kill-syscall.js';
import { straceAvailability } from '../programs.js';
import { failCalls } from '../storage/io-error.js';
import { KINDS, SYNC_CALLS, WRITE_CALLS } from '../tracing/kinds.js';

/** One place in the life of a service, and what is done to it there. */
export interface SyscallPoint {
  service: string;
  /** A kind of call; for an error `sync` or `write`. */
  kind: string;
  /** The n-th call of that kind that a thread of it makes after its start. */
  nth: number;
  what: 'kill' | 'EIO' | 'ENOSPC';
}

/** Which calls an error of that kind fails. */
export function failing(kind: string): typeof SYNC_CALLS | typeof WRITE_CALLS {
  return kind === 'sync' ? SYNC_CALLS : WRITE_CALLS;
}

/** Names of the faults that do what is done at a point. */
export function faultOf({ what }: SyscallPoint): 'kill-syscall' | 'io-error' {
  return what === 'kill' ? 'kill-syscall' : 'io-error';
}

/**
 * Faults that are done at given points, one after the other, instead of at drawn ones.
 * @param done called after each with whether the point was reached.
 */
export function pointFaults(
  points: readonly SyscallPoint[],
  done: (point: SyscallPoint, reached: boolean) => void = () => {},
): Map<string, Fault> {
  const left = [...points];
  const fault = (name: 'kill-syscall' | 'io-error', family: string): Fault => ({
    name,
    family,
    summary: 'a system call is the last of a service, or fails: each in its turn',
    needs: { target: 'up', disk: 'any' },
    available: async () => straceAvailability(),
    async inject(ground: Ground): Promise<Injection> {
      const point = left.shift();
      const service = ground.services.find((one) => one.name === point?.service);
      if (point === undefined || service === undefined) return miss('no service of that name');
      const injection = await injectAt(ground, service, point);
      done(point, injection.hit);
      return injection;
    },
    heal: async (ground) => ground.flood(false),
  });
  return new Map([
    ['kill-syscall', fault('kill-syscall', 'kill')],
    ['io-error', fault('io-error', 'io-error')],
  ]);
}

async function injectAt(ground: Ground, service: Service, point: SyscallPoint): Promise<Injection> {
  const { kind, nth, what } = point;
  if (what !== 'kill') {
    const tampering = { calls: failing(kind), what: `error=${what}`, when: `${nth}` } as const;
    const { failed, lossy, torn, detail, failingMs } = await failCalls(ground, tampering, service);
    const names = ground.services.map(({ name }) => name);
    if (lossy) return { ...hit(detail, torn ? 'machine' : 'all-processes', names), failingMs };
    const why = failed > 0 ? detail : `${service.name} did not come to its ${nth}. ${kind}`;
    return { ...miss(why, names), scope: 'all-processes' };
  }
  const calls = KINDS.find((one) => one.kind === kind)?.calls ?? [];
  const scope = ground.services.length === 1 ? 'all-processes' : 'some-processes';
  const detail = `SIGKILL to ${service.name} at its ${nth}. ${kind} call (${calls.join(', ')})`;
  if (await killAt(ground, service, calls, nth)) return hit(detail, scope, [service.name]);
  return { ...miss(`${service.name} did not come to its ${nth}. ${kind} call`, [service.name]), scope };
}

import type { Fault, FaultContext, Injection, Service } from '../fault.js';
import { hit, miss } from '../injection.js';
import { killAt } from '../process/kill-syscall.js';
import { straceAvailability } from '../programs.js';
import { failCalls } from '../storage/io-error.js';
import { CALL_KINDS, SYNC_CALLS, WRITE_CALLS } from '../tracing/call-kinds.js';

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
export function callsToFail(kind: string): typeof SYNC_CALLS | typeof WRITE_CALLS {
  return kind === 'sync' ? SYNC_CALLS : WRITE_CALLS;
}

/** Names of the faults that do what is done at a point. */
export function faultNameOf({ what }: SyscallPoint): 'kill-syscall' | 'io-error' {
  return what === 'kill' ? 'kill-syscall' : 'io-error';
}

/**
 * Faults that are done at given points, one after the other, instead of at drawn ones.
 * @param onInjected called after each with whether the point was reached.
 */
export function syscallPointFaults(
  points: readonly SyscallPoint[],
  onInjected: (point: SyscallPoint, reached: boolean) => void = () => {},
): Map<string, Fault> {
  const remaining = [...points];
  const fault = (name: 'kill-syscall' | 'io-error', family: string): Fault => ({
    name,
    family,
    summary: 'a system call is the last of a service, or fails: each in its turn',
    needs: { target: 'up', disk: 'any' },
    available: async () => straceAvailability(),
    async inject(context: FaultContext): Promise<Injection> {
      const point = remaining.shift();
      const service = context.services.find((one) => one.name === point?.service);
      if (point === undefined || service === undefined) return miss('no service of that name');
      const injection = await injectAt(context, service, point);
      onInjected(point, injection.hit);
      return injection;
    },
    heal: async (context) => context.flood(false),
  });
  return new Map([
    ['kill-syscall', fault('kill-syscall', 'kill')],
    ['io-error', fault('io-error', 'io-error')],
  ]);
}

async function injectAt(context: FaultContext, service: Service, point: SyscallPoint): Promise<Injection> {
  const { kind, nth, what } = point;
  if (what !== 'kill') {
    const tampering = { calls: callsToFail(kind), what: `error=${what}`, when: `${nth}` } as const;
    const {
      failedCount: failed,
      lostData: lossy,
      torn,
      detail,
      failingMs,
    } = await failCalls(context, tampering, service);
    const names = context.services.map(({ name }) => name);
    if (lossy) return { ...hit(detail, torn ? 'machine' : 'all-processes', names), failingMs };
    const why = failed > 0 ? detail : `${service.name} did not come to its ${nth}. ${kind}`;
    return { ...miss(why, names), scope: 'all-processes' };
  }
  const calls = CALL_KINDS.find((one) => one.kind === kind)?.calls ?? [];
  const scope = context.services.length === 1 ? 'all-processes' : 'some-processes';
  const detail = `SIGKILL to ${service.name} at its ${nth}. ${kind} call (${calls.join(', ')})`;
  if (await killAt(context, service, calls, nth)) return hit(detail, scope, [service.name]);
  return { ...miss(`${service.name} did not come to its ${nth}. ${kind} call`, [service.name]), scope };
}

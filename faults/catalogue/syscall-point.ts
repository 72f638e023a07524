import type { Fault, FaultContext, Injection, Service } from '../fault.js';
import { hit, miss } from '../injection.js';
import { killAt } from '../process/kill-syscall.js';
import { straceAvailability } from '../programs.js';
import { failCalls } from '../storage/io-error.js';
import { CALL_KINDS, SYNC_CALLS, WRITE_CALLS } from '../tracing/call-kinds.js';

/** One system call in the run of a service, and the fault that is injected there. */
export interface SyscallPoint {
  service: string;
  /** Kind of the system call; `sync` or `write` when the injected fault is an error. */
  kind: string;
  /**
   * Position of the call: the n-th call of its kind that a thread of the service makes after the start; from
   * 1.
   */
  nth: number;
  what: 'kill' | 'EIO' | 'ENOSPC';
}

/** Returns the system calls that an error at a call of this kind makes fail. */
export function callsToFail(kind: string): typeof SYNC_CALLS | typeof WRITE_CALLS {
  return kind === 'sync' ? SYNC_CALLS : WRITE_CALLS;
}

/** Returns the name of the fault that is injected at a point. */
export function faultNameOf({ what }: SyscallPoint): 'kill-syscall' | 'io-error' {
  return what === 'kill' ? 'kill-syscall' : 'io-error';
}

/**
 * Makes faults that are injected at the given points, one after the other, instead of at random points.
 * @param onInjected called after each injection with whether the point was reached.
 * @returns the faults by name.
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
    const { failedCount, lostData, torn, detail, failingMs, ...traces } = await failCalls(
      context,
      tampering,
      { only: service },
    );
    const names = context.services.map(({ name }) => name);
    if (lostData) return { ...hit(detail, torn ? 'machine' : 'all-processes', names), failingMs, ...traces };
    const why = failedCount > 0 ? detail : `${service.name} did not come to its ${nth}. ${kind}`;
    return { ...miss(why, names), scope: 'all-processes' };
  }
  const calls = CALL_KINDS.find((one) => one.kind === kind)?.calls ?? [];
  const scope = context.services.length === 1 ? 'all-processes' : 'some-processes';
  const detail = `SIGKILL to ${service.name} at its ${nth}. ${kind} call (${calls.join(', ')})`;
  if (await killAt(context, service, calls, nth)) return hit(detail, scope, [service.name]);
  return { ...miss(`${service.name} did not come to its ${nth}. ${kind} call`, [service.name]), scope };
}

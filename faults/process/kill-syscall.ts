import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Fault, FaultContext, Injection, Service } from '../fault.js';
import { hit, killServices, miss } from '../injection.js';
import { straceAvailability } from '../programs.js';
import { logUniformInt } from '../random-choice.js';
import { CALL_KINDS, type CallKind } from '../tracing/call-kinds.js';
import { straceCommand } from '../tracing/strace.js';
import { until } from '../waiting.js';

/** For each kind of call, the largest n for which a process is killed before its n-th call of that kind. */
const MAX_NTH: Readonly<Record<CallKind, number>> = {
  sync: 60,
  write: 150,
  send: 150,
  read: 200,
  open: 60,
  name: 4,
  lock: 100,
  connect: 20,
  wait: 200,
  ring: 200,
};

/** Upper bound for reaching the n-th call, in ms from the start of the service. */
const CALL_TIMEOUT_MS = 1500;
const MAX_TRIES = 3;

/**
 * Restarts a service under strace, which kills it before its n-th system call of a kind. The kill is bound to
 * a position in the code and not to a time, so that the same n kills it at the same line.
 */
export const killSyscall: Fault = {
  name: 'kill-syscall',
  family: 'kill',
  summary: 'SIGKILL at the n-th system call of a kind: no line of the code is a bad one to die at',
  needs: { target: 'up', disk: 'any' },
  available: async () => straceAvailability(),
  async inject(context: FaultContext): Promise<Injection> {
    const misses: string[] = [];
    for (let attempt = 1; attempt <= MAX_TRIES && !context.signal.aborted; attempt++) {
      const service = context.random.pick(context.services);
      const { kind, calls } = context.random.pick(CALL_KINDS);
      const maxNth = MAX_NTH[kind];
      // A service that did not reach its n-th call may make such calls only during its start, so try an early
      // call.
      const limit = attempt === 1 ? maxNth : Math.ceil(maxNth / 10);
      const nth =
        context.random.int(2) === 0 ? 1 + context.random.int(limit) : logUniformInt(context.random, 1, limit);
      const what = `${service.name} at its ${nth}. ${kind} call (${calls.join(', ')})`;
      if (await killAt(context, service, calls, nth)) {
        const scope = context.services.length === 1 ? 'all-processes' : 'some-processes';
        return hit(`SIGKILL to ${what}`, scope, [service.name]);
      }
      misses.push(what);
      await service.start();
    }
    return miss(`SIGKILL to ${misses.join(', and to ')}: not reached in ${CALL_TIMEOUT_MS} ms each`);
  },
  heal: async () => {},
};

/**
 * Restarts a service so that it is killed at its n-th call among the given system calls. The service is down
 * afterwards in any case.
 * @returns true when it died at that call.
 */
export async function killAt(
  context: FaultContext,
  service: Service,
  calls: readonly string[],
  nth: number,
): Promise<boolean> {
  const log = join(context.scratchDir, `kill-syscall-${service.name}.strace`);
  await killServices([service]);
  const tampering = { calls, what: 'signal=KILL', when: `${nth}` } as const;
  await service.start(straceCommand({ log, calls, tampering }));
  const hasDied = await waitForDeath(service, log, context.signal);
  // strace kills only one process. Kill the others too, because a service crashes as a whole.
  await killServices([service]);
  rmSync(log, { force: true });
  return hasDied;
}

/**
 * Waits until strace's log shows a kill, or until the service has no process left. Resolves to false after
 * CALL_TIMEOUT_MS or an abort.
 */
async function waitForDeath(service: Service, log: string, signal: AbortSignal): Promise<boolean> {
  return until(() => service.pids().length === 0 || logShowsKill(log), CALL_TIMEOUT_MS, signal, 10);
}

function logShowsKill(log: string): boolean {
  try {
    const text = readFileSync(log, 'latin1');
    return text.includes('killed by SIGKILL');
  } catch {
    return false;
  }
}

import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Fault, FaultContext, Injection, Service } from '../fault.js';
import { hit, killServices, miss } from '../injection.js';
import { straceAvailability } from '../programs.js';
import { logUniformInt } from '../random-choice.js';
import { CALL_KINDS, type CallKind } from '../tracing/call-kinds.js';
import { straceCommand } from '../tracing/strace.js';
import { until } from '../waiting.js';

/** Up to which one of its kind a process is let live. */
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

const CALL_TIMEOUT_MS = 1500;
const MAX_TRIES = 3;

/**
 * The service is started again under strace, which kills it before its n-th system call of a kind: a place in the
 * code, not a time, so that the same n dies at the same line.
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
      // Who did not come to its n-th call may never make such calls but while it starts: then an early one.
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

/** True when the service died at that call; it is down afterwards in any case. */
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
  // Where only one of its processes died the rest goes too: a service is one thing that crashes.
  await killServices([service]);
  rmSync(log, { force: true });
  return hasDied;
}

/** strace names the death of every process that it kills; a service may have more than one. */
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

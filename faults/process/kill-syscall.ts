import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Fault, Ground, Injection, Service } from '../fault.js';
import { hit, killServices, miss } from '../injection.js';
import { straceAvailability } from '../programs.js';
import { spread } from '../random-choice.js';
import { type CallKind, KINDS } from '../tracing/kinds.js';
import { straceCommand } from '../tracing/strace.js';
import { until } from '../waiting.js';

/** Up to which one of its kind a process is let live. */
const MOST: Readonly<Record<CallKind, number>> = {
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

const WAIT_MS = 1500;
const TRIES = 3;

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
  async inject(ground: Ground): Promise<Injection> {
    const misses: string[] = [];
    for (let time = 1; time <= TRIES && !ground.signal.aborted; time++) {
      const service = ground.random.pick(ground.services);
      const { kind, calls } = ground.random.pick(KINDS);
      const most = MOST[kind];
      // Who did not come to its n-th call may never make such calls but while it starts: then an early one.
      const highest = time === 1 ? most : Math.ceil(most / 10);
      const nth =
        ground.random.int(2) === 0 ? 1 + ground.random.int(highest) : spread(ground.random, 1, highest);
      const what = `${service.name} at its ${nth}. ${kind} call (${calls.join(', ')})`;
      if (await killAt(ground, service, calls, nth)) {
        const scope = ground.services.length === 1 ? 'all-processes' : 'some-processes';
        return hit(`SIGKILL to ${what}`, scope, [service.name]);
      }
      misses.push(what);
      await service.start();
    }
    return miss(`SIGKILL to ${misses.join(', and to ')}: not reached in ${WAIT_MS} ms each`);
  },
  heal: async () => {},
};

/** True when the service died at that call; it is down afterwards in any case. */
export async function killAt(
  ground: Ground,
  service: Service,
  calls: readonly string[],
  nth: number,
): Promise<boolean> {
  const log = join(ground.scratchDir, `kill-syscall-${service.name}.strace`);
  await killServices([service]);
  const tampering = { calls, what: 'signal=KILL', when: `${nth}` } as const;
  await service.start(straceCommand({ log, calls, tampering }));
  const died = await waitForDeath(service, log, ground.signal);
  // Where only one of its processes died the rest goes too: a service is one thing that crashes.
  await killServices([service]);
  rmSync(log, { force: true });
  return died;
}

/** strace names the death of every process that it kills; a service may have more than one. */
async function waitForDeath(service: Service, log: string, signal: AbortSignal): Promise<boolean> {
  return until(() => service.pids().length === 0 || diedOf(log), WAIT_MS, signal, 10);
}

function diedOf(log: string): boolean {
  try {
    const text = readFileSync(log, 'latin1');
    return text.includes('killed by SIGKILL');
  } catch {
    return false;
  }
}

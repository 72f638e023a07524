import { appendFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { localAddress } from '../../conformance/protocols/address.js';
import { protocolOf } from '../../conformance/protocols/registry/registry.js';
import type { Service } from '../../faults/fault.js';
import { until } from '../../faults/waiting.js';
import type { Deployment } from '../runtime/runtime.js';
import { type StartResult, TargetSupervisor } from './target-supervisor.js';

/** Time limit far above what a start needs in these tests. */
const GENEROUS_MS = 60_000;

/** What a fake service does at each start, by the number of the start from 1. */
type Behaviour = (start: number) => 'live' | 'fork-away' | { exit: number; prints?: string };

/** Starts a fake target and returns the result of the start, and the number of starts of each service. */
async function bringUp(
  t: { teardown(remove: () => void): void },
  behaviours: Record<string, Behaviour>,
  options: { isReady(): boolean; kind: 'first' | 'recovery'; earlierLog?: string; staysUp?: boolean },
): Promise<{
  result: StartResult;
  starts: Record<string, number>;
  lines: string[];
  supervisor: TargetSupervisor;
}> {
  const logDir = mkdtempSync(join(tmpdir(), 'plugpull-supervisor-'));
  t.teardown(() => rmSync(logDir, { recursive: true, force: true }));
  const starts: Record<string, number> = {};
  const lines: string[] = [];
  let supervisor: TargetSupervisor | undefined;
  const services = Object.entries(behaviours).map(([name, behaviour]): Service => {
    let pids: number[] = [];
    if (options.earlierLog !== undefined) appendFileSync(join(logDir, `${name}.log`), options.earlierLog);
    return {
      name,
      pids: () => pids,
      signal: async () => {
        pids = [];
        return 1;
      },
      waitForExit: async () => {},
      async start() {
        if (pids.length > 0) return;
        const number = (starts[name] ?? 0) + 1;
        starts[name] = number;
        supervisor?.onStarted(name, number);
        const does = behaviour(number);
        if (does === 'live' || does === 'fork-away') pids = [1];
        if (does === 'live') return;
        if (does !== 'fork-away' && does.prints !== undefined)
          appendFileSync(join(logDir, `${name}.log`), does.prints);
        supervisor?.onExited(name, number, does === 'fork-away' ? 0 : does.exit, null);
      },
    };
  });
  const deployment: Deployment = {
    services,
    runCommand: () => Promise.reject(new Error('no command is run')),
    reboot: async () => undefined,
    stop: async () => {},
    destroy: async () => {},
    destroyNow: () => {},
  };
  const http = await protocolOf('http');
  supervisor = new TargetSupervisor(deployment, {
    protocol: { ...http, ready: async () => options.isReady() },
    addresses: [localAddress(1)],
    recorder: { record: (event) => ({ ...event, atMs: 0 }) },
    signal: new AbortController().signal,
    logDir,
    logDirLabel: 'round-1/logs',
    onFailedStart: (line) => void lines.push(line),
    onCrash: () => {},
  });
  const result = await supervisor.bringUp(GENEROUS_MS, options.kind);
  if (!options.staysUp) supervisor.expectExits();
  return { result, starts, lines, supervisor };
}

const never = () => false;

t.test('the first start of a target that dies each time ends after five exits and says why', async (t) => {
  const dies: Behaviour = (start) => ({ exit: 1, prints: `start ${start}\nno such key: foo\n` });
  const { result, starts, lines } = await bringUp(t, { server: dies }, { isReady: never, kind: 'first' });
  t.equal(starts.server, 5);
  t.match(result, {
    ready: false,
    detail:
      /^not running: server; services\.server exited with code 1 after \d\.\d s, 5 times; round-1\/logs\/server\.log ends with: start 5 \| no such key: foo$/,
  });
  t.match(lines, [/^services\.server exited with code 1 after \d\.\d s, before it was ready/]);
});

t.test('a recovery allows more exits than a first start', async (t) => {
  const recovers: Behaviour = (start) => (start <= 12 ? { exit: 1 } : 'live');
  let isUp = false;
  const server: Behaviour = (start) => {
    const does = recovers(start);
    isUp = does === 'live';
    return does;
  };
  const { result, starts, lines } = await bringUp(t, { server }, { isReady: () => isUp, kind: 'recovery' });
  t.match(result, { ready: true });
  t.equal(starts.server, 13);
  t.same(lines, []);
});

t.test('a service may die often at the first start while another one is still starting', async (t) => {
  let workerStarts = 0;
  const worker: Behaviour = (start) => {
    workerStarts = start;
    return start <= 12 ? { exit: 1 } : 'live';
  };
  const services = { server: (() => 'live') satisfies Behaviour, worker };
  const { result } = await bringUp(t, services, { isReady: () => workerStarts > 12, kind: 'first' });
  t.match(result, { ready: true });
});

t.test('a daemon whose parent exits with code 0 is a service that runs', async (t) => {
  let starts = 0;
  const daemon: Behaviour = () => {
    starts++;
    return 'fork-away';
  };
  let probes = 0;
  const isReady = () => ++probes > 30;
  const { result, lines } = await bringUp(t, { daemon }, { isReady, kind: 'first' });
  t.match(result, { ready: true });
  t.equal(starts, 1);
  t.same(lines, [], 'its exit is no failed start');
});

t.test('a service that never stayed up before the first fault has not failed to recover', async (t) => {
  const helper: Behaviour = (start) => (start === 4 ? 'live' : { exit: 7 });
  const services = { server: (() => 'live') satisfies Behaviour, helper };
  const options = { isReady: () => true, kind: 'first', staysUp: true } as const;
  const { result, supervisor } = await bringUp(t, services, options);
  t.match(result, { ready: true });
  supervisor.suspendRestarts();
  for (const service of supervisor.services) await service.signal('SIGKILL');
  // The time is up at once, so that the number of further exits depends on nothing.
  const recovery = await supervisor.bringUp(0);
  supervisor.expectExits();
  t.match(recovery, { ready: false, detail: /^not running: helper; / });
  t.match(supervisor.crashLoop, { beforeFirstFault: true });
});

t.test('one exit at the first start does not excuse a crash loop after a fault', async (t) => {
  const helper: Behaviour = (start) => (start === 2 ? 'live' : { exit: 7 });
  const services = { server: (() => 'live') satisfies Behaviour, helper };
  let isReady = true;
  const options = { isReady: () => isReady, kind: 'first', staysUp: true } as const;
  const { result, starts, supervisor } = await bringUp(t, services, options);
  t.match(result, { ready: true });
  t.ok(await until(() => starts.helper === 2, GENEROUS_MS), 'the helper stays up after its second start');
  isReady = false;
  supervisor.suspendRestarts();
  for (const service of supervisor.services) await service.signal('SIGKILL');
  const recovery = await supervisor.bringUp(GENEROUS_MS);
  supervisor.expectExits();
  t.match(recovery, { ready: false, detail: /^not running: helper; / });
  t.match(supervisor.crashLoop, { beforeFirstFault: false });
});

t.test('the first fault waits for a service that exited right after its start', async (t) => {
  const settled = async (helper: Behaviour) => {
    const services = { server: (() => 'live') satisfies Behaviour, helper };
    const options = { isReady: () => true, kind: 'first', staysUp: true } as const;
    const { starts, supervisor } = await bringUp(t, services, options);
    await supervisor.waitUntilSettled(new AbortController().signal);
    supervisor.expectExits();
    return starts.helper ?? 0;
  };
  t.equal(await settled(() => 'live'), 1);
  t.ok((await settled(() => ({ exit: 7 }))) >= 3, 'it has exited often enough');
  t.equal(
    await settled((start) => (start > 1 ? 'live' : { exit: 7 })),
    2,
    'it stays up after its second start',
  );
});

t.test('a reason above the last lines is shown too', async (t) => {
  const stack = ['Error: EACCES: permission denied', ...Array.from({ length: 9 }, (_, n) => `    at f${n}`)];
  const dies: Behaviour = () => ({ exit: 1, prints: `${stack.join('\n')}\n` });
  const { result } = await bringUp(t, { server: dies }, { isReady: never, kind: 'first' });
  const last = / says: Error: EACCES: permission denied, and ends with: +at f6 \| +at f7 \| +at f8$/;
  t.match(result, { detail: last });
});

t.test('the last lines are those of the last start, and not of an earlier one', async (t) => {
  const silent: Behaviour = (start) => (start === 1 ? { exit: 1, prints: 'first start\n' } : { exit: 1 });
  const earlierLog = 'a line from an earlier disk\n';
  const { result } = await bringUp(t, { server: silent }, { isReady: never, kind: 'first', earlierLog });
  t.match(result, { detail: /; round-1\/logs\/server\.log has no line of this start$/ });
});

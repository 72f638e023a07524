import type { Fault, FaultContext, Injection, Service } from '../fault.js';
import { hit, liveServices, miss } from '../injection.js';
import { noteDown } from '../link/down-nodes.js';
import { hasThreadInState } from '../thread-state.js';
import { sleep } from '../waiting.js';
import { blocklogAvailability } from './blocklog-availability.js';
import { cutNodes, cuttable } from './cut-nodes.js';

/**
 * Limits of a stall, in ms. Half of the stalls are shorter than 3 s: during a longer one, a round does nothing else.
 */
const MIN_STALL_MS = 1000;
const MAX_STALL_MS = 60_000;
/** Upper limit of a stall in a cluster, in ms: the other nodes have gone on by then, or a pair stands still. */
const MAX_CLUSTER_STALL_MS = 15_000;
/** Interval in ms between two looks at the processes. */
const LOOK_MS = 50;
/** Number of looks in a row that must find a thread waiting: a thread also waits for other disks, but not that long. */
const MIN_LOOKS = 5;
/** Interval in ms at which the kit tells its watchdog that it wants the stall. The watchdog ends any other stall after a minute. */
const RENEW_MS = 10_000;
/** Time in ms from the beginning of a stall. A later confirmation does not rest on what the disk did before the stall. */
const GRACE_MS = 500;
/** Upper bound in ms of the wait for a confirmation after the stall. */
const RECOVERY_MS = 10_000;

/**
 * Stops a disk for a while: every read, write and flush waits. Then the disk goes on, or, in half of the draws, the power is
 * cut: a confirmation that was given meanwhile without the disk is then lost.
 */
export const diskStall: Fault = {
  name: 'disk-stall',
  family: 'disk-stall',
  summary:
    'the disk answers nothing for a while: nothing is confirmed without it, and work goes on afterwards',
  needs: { target: 'up', disk: 'power' },
  actsOnStoredData: true,
  holdsReceivers: 'sometimes',
  available: async () => blocklogAvailability(),
  async inject(context: FaultContext): Promise<Injection> {
    const { random, signal } = context;
    const [node] = cuttable(context.nodes);
    const stall = node?.powerDisk.stall;
    if (node === undefined || stall === undefined)
      return miss('the data is on a disk that the kit cannot stop for a while');
    if (liveServices(context).length === 0) return miss('no service had a process');
    const maxMs = context.cluster === undefined ? MAX_STALL_MS : MAX_CLUSTER_STALL_MS;
    const stallMs = Math.round(MIN_STALL_MS * (maxMs / MIN_STALL_MS) ** (random.real() ** 2));
    const endsWithCut = random.int(2) === 0;
    const named = context.cluster && { nodes: [node.name] };
    const startMs = performance.now();
    await stall.begin();
    let waiting: string | undefined;
    let answered = false;
    try {
      const watched = watchAnswers(context, stallMs);
      waiting = await watchWaiting(node.services, stallMs, signal, () => stall.begin());
      answered = await watched;
      if (!endsWithCut) await stall.end();
    } catch (error) {
      await stall.end();
      throw error;
    }
    const tookMs = Math.round(performance.now() - startMs);
    const who = waiting === undefined ? 'no process waited for it' : `${waiting} waited for it`;
    const meanwhile = answered ? ', and messages were confirmed meanwhile' : '';
    const story = `the disk answered nothing for ${tookMs} ms, ${who}${meanwhile}`;
    if (endsWithCut) {
      noteDown(context, [node]);
      const { detail, services, lostFiles } = await cutNodes([node], random);
      const failingMs = Math.round(performance.now() - startMs);
      return {
        ...hit(`${story}; ${detail}`, 'machine', services),
        ...named,
        failingMs,
        ...(lostFiles && { lostFiles }),
      };
    }
    const recovered = signal.aborted ? 'reached' : await context.waitForConfirms(1, RECOVERY_MS);
    const late =
      recovered === 'timeout' ? `; nothing was confirmed in the ${RECOVERY_MS / 1000} s after it` : '';
    const services = node.services.map(({ name }) => name);
    const injection = waiting === undefined ? miss(story, services) : hit(story + late, 'none', services);
    return { ...injection, ...named };
  },
  async heal(context: FaultContext): Promise<void> {
    for (const { powerDisk } of context.nodes) await powerDisk?.stall?.end();
  },
};

/** Resolves to whether a message was confirmed more than GRACE_MS after now, within `stallMs`. */
async function watchAnswers(context: FaultContext, stallMs: number): Promise<boolean> {
  await sleep(GRACE_MS, context.signal);
  if (context.signal.aborted) return false;
  return (await context.waitForConfirms(1, stallMs - GRACE_MS)) === 'reached';
}

/**
 * Looks at the threads of the services for `stallMs`. Resolves to the name of a service with a thread that waited for the
 * disk; undefined when there was none.
 */
async function watchWaiting(
  services: readonly Service[],
  stallMs: number,
  signal: AbortSignal,
  renew: () => Promise<void>,
): Promise<string | undefined> {
  const endMs = performance.now() + stallMs;
  let renewMs = performance.now() + RENEW_MS;
  const looks = new Map<string, number>();
  let found: string | undefined;
  while (performance.now() < endMs && !signal.aborted) {
    for (const service of services) {
      const waits = service.pids().some((pid) => hasThreadInState(pid, 'D'));
      const count = waits ? (looks.get(service.name) ?? 0) + 1 : 0;
      looks.set(service.name, count);
      if (count >= MIN_LOOKS) found ??= service.name;
    }
    if (performance.now() > renewMs) {
      await renew();
      renewMs = performance.now() + RENEW_MS;
    }
    await sleep(Math.min(LOOK_MS, endMs - performance.now()), signal);
  }
  return found;
}

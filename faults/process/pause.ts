import type { Fault, FaultContext, Injection } from '../fault.js';
import { hit, killServices, liveServices, miss, namesOfHarmed } from '../injection.js';
import { noteDown, noteUp } from '../link/down-nodes.js';
import { AVAILABLE } from '../programs.js';
import { logUniformInt, sample } from '../random-choice.js';
import { sleep } from '../waiting.js';

const MIN_PAUSE_MS = 20;
const MAX_PAUSE_MS = 2500;
/** Upper bound in ms of a pause of whole nodes, in which the others may elect a new leader. */
const MAX_NODES_PAUSE_MS = 10_000;

/**
 * Stops a service and lets it continue later, as on a busy machine. Sometimes it also kills another service
 * meanwhile and starts it again before the stopped one continues: the stopped service then has outdated
 * knowledge of its partner.
 *
 * In a cluster, it stops all services of the nodes of the context, if these are several, or else in half of the draws. In
 * some draws the pause is long enough for an election.
 */
export const pause: Fault = {
  name: 'pause',
  family: 'pause',
  summary:
    'SIGSTOP, later SIGCONT: a partner that is silent is not dead, and one that comes back is not the same',
  needs: { target: 'up', disk: 'any', nodes: 'scope' },
  available: async () => AVAILABLE,
  async inject(context: FaultContext): Promise<Injection> {
    if (context.cluster !== undefined && (context.nodes.length > 1 || context.random.int(2) === 0))
      return pauseNodes(context, context.cluster.electionMs);
    const [pausedService, otherService] = sample(context.random, liveServices(context), 2);
    if (pausedService === undefined) return miss('no service had a process');
    const pauseMs = logUniformInt(context.random, MIN_PAUSE_MS, MAX_PAUSE_MS);
    const killsOther = otherService !== undefined && context.random.int(2) === 0;
    const signalled = await pausedService.signal('SIGSTOP');
    if (signalled === 0) return miss(`${pausedService.name} was gone before the signal`);
    let killed: string[] = [];
    if (killsOther) {
      await sleep(context.random.int(Math.min(pauseMs, 100)), context.signal);
      killed = await killServices([otherService]);
      await otherService.start();
    }
    await sleep(pauseMs, context.signal);
    const services = [pausedService.name, ...killed];
    const harmed = namesOfHarmed(context, services);
    if (killed.length === 0)
      return { ...hit(`SIGSTOP to ${pausedService.name} for ${pauseMs} ms`, 'none', services), ...harmed };
    const detail = `SIGSTOP to ${pausedService.name} for ${pauseMs} ms, SIGKILL to ${killed.join(', ')} meanwhile`;
    return { ...hit(detail, 'some-processes', services), ...harmed };
  },
  async heal(context: FaultContext): Promise<void> {
    await Promise.all(context.services.map((service) => service.signal('SIGCONT')));
    noteUp(context);
  },
};

/** Stops all services of the nodes for a while. */
async function pauseNodes(context: FaultContext, electionMs: number): Promise<Injection> {
  const { random, signal, nodes } = context;
  const isLong = random.int(3) === 0;
  const longestMs = isLong ? Math.max(MAX_PAUSE_MS, Math.min(electionMs, MAX_NODES_PAUSE_MS)) : MAX_PAUSE_MS;
  const pauseMs = logUniformInt(random, isLong ? MAX_PAUSE_MS : MIN_PAUSE_MS, longestMs);
  noteDown(context, nodes);
  const up = liveServices(context);
  const counts = await Promise.all(up.map((service) => service.signal('SIGSTOP')));
  const stopped = up.filter((_, index) => (counts[index] ?? 0) > 0).map(({ name }) => name);
  if (stopped.length === 0) return miss('no service had a process');
  // From now on they are surely stopped: what was confirmed in between shows nothing.
  noteDown(context, nodes);
  await sleep(pauseMs, signal);
  const detail = `SIGSTOP to ${stopped.join(', ')} for ${pauseMs} ms`;
  return { ...hit(detail, 'none', stopped), ...namesOfHarmed(context, stopped) };
}

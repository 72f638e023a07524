import type { Availability, Fault, FaultContext, Injection, Links, Random } from '../fault.js';
import { hit, miss } from '../injection.js';
import { logUniformInt } from '../random-choice.js';
import { NO_LIMIT, nodeNames } from './cluster-steps.js';

/** Limits of the time for which the packets of a node are impaired, in ms. */
const MIN_TIME_MS = 500;
const MAX_TIME_MS = 8000;

type Impairment = Parameters<NonNullable<Links['impair']>>[1];

/** Delays the packets of one node, each by another time, so that they also come in another order. */
export const linkDelay: Fault = impairing({
  name: 'link-delay',
  summary: 'the packets of one node come late: a slow node is neither dead nor up to date',
  draw: (random) => {
    const delayMs = logUniformInt(random, 5, 1000);
    return { delayMs, jitterMs: random.int(Math.ceil(delayMs / 2)) };
  },
  describe: ({ delayMs = 0, jitterMs = 0 }) => `came ${delayMs} ms late, give or take ${jitterMs} ms`,
});

/** Drops some of the packets of one node. */
export const linkLoss: Fault = impairing({
  name: 'link-loss',
  summary: 'some packets of one node are lost: what is sent again is not done twice',
  draw: (random) => ({ lossPercent: 1 + random.int(50) }),
  describe: ({ lossPercent = 0 }) => `were dropped with a probability of ${lossPercent} %`,
});

function impairing(kind: {
  name: string;
  summary: string;
  draw: (random: Random) => Impairment;
  describe: (how: Impairment) => string;
}): Fault {
  const { name, summary, draw, describe } = kind;
  return {
    name,
    family: name,
    summary,
    needs: { target: 'up', disk: 'any', nodes: 'cluster' },
    available: async () => unavailableHere(),
    async inject(context: FaultContext): Promise<Injection> {
      const { cluster, random } = context;
      if (cluster === undefined) return miss('the target has one node');
      const { links } = cluster;
      if (links.impair === undefined)
        return miss('the links of this runtime cannot be delayed or made to lose packets');
      if (cluster.tolerates < 1) return miss('the target does not claim to survive the failure of a node');
      const node = random.pick(nodeNames(cluster));
      const how = draw(random);
      const timeMs = logUniformInt(random, MIN_TIME_MS, MAX_TIME_MS);
      cluster.noteState({ down: [], cut: [] });
      await links.impair(node, how);
      const confirmed = await cluster.waitForConfirmsBy(nodeNames(cluster), NO_LIMIT, timeMs);
      const detail = `the packets of ${node} ${describe(how)} for ${timeMs} ms, ${confirmed} confirmed meanwhile`;
      const injection =
        confirmed > 0 ? hit(detail, 'none', []) : miss(`${detail}: nothing shows that packets were sent`);
      return { ...injection, nodes: [node] };
    },
    async heal({ cluster }: FaultContext): Promise<void> {
      if (cluster?.links.impair === undefined) return;
      for (const node of nodeNames(cluster)) await cluster.links.impair(node, {});
      cluster.noteState({ down: [], cut: [] });
    },
  };
}

/** A runtime that can do it lists the faults among those that it enables. */
function unavailableHere(): Availability {
  return {
    available: false,
    why: 'only the kernel of the lab VM delays or drops packets (netem)',
    remedy: 'use --runtime vm',
  };
}

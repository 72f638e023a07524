import type { ClusterContext, Fault, FaultContext, Injection } from '../fault.js';
import { hit, miss } from '../injection.js';
import { AVAILABLE } from '../programs.js';
import { logUniformInt, sample } from '../random-choice.js';
import { sleep } from '../waiting.js';
import { changeLinks, findPrimary, healLinks, NO_LIMIT, nodeNames, promoteOne } from './cluster-steps.js';
import { mayConfirm, quorumOf } from './majority.js';
import { drawShape, list, type Shape } from './shapes.js';

/** Limits of the time for which links are cut, in ms. */
const MIN_CUT_MS = 300;
const MAX_CUT_MS = 5000;
/** Upper bound in ms of the wait for an election. A claim of a longer time must not take the whole round. */
const MAX_ELECTION_MS = 10_000;
/** Upper bound of the confirmations after an election for which the cut goes on. */
const MAX_CONFIRMS = 50;
/** Upper bound in ms of the time after which an operator notices that the primary cannot be reached. */
const MAX_NOTICE_MS = 1000;

/**
 * Cuts links between nodes, and heals them. In some draws the cut lasts until the nodes that may confirm have confirmed
 * again. In a cluster whose operator promotes nodes, some draws cut the primary off and promote another node. A pair of which
 * none is promoted may stand still while it is cut, and must confirm again when it is healed.
 */
export const partition: Fault = {
  name: 'partition',
  family: 'partition',
  summary: 'links between nodes carry nothing: a minority confirms nothing, and healing takes nothing back',
  needs: { target: 'up', disk: 'any', nodes: 'cluster' },
  holdsReceivers: 'sometimes',
  available: async () => AVAILABLE,
  async inject(context: FaultContext): Promise<Injection> {
    const { cluster, random } = context;
    if (cluster === undefined) return miss('the target has one node');
    const names = nodeNames(cluster);
    const wantsPromotion = cluster.promote !== undefined && cluster.tolerates > 0 && random.int(2) === 0;
    const oldPrimary = wantsPromotion ? await findPrimary(cluster) : undefined;
    const shape = drawShape(random, names, cluster.tolerates, oldPrimary);
    if (shape === undefined)
      return miss(`no partition of ${names.length} nodes harms at most ${cluster.tolerates} of them`);
    const lastsMs = logUniformInt(random, MIN_CUT_MS, MAX_CUT_MS);
    const electionMs = random.int(3) === 0 ? Math.min(cluster.electionMs, MAX_ELECTION_MS) : 0;
    const moreConfirms = 1 + random.int(MAX_CONFIRMS);
    const startMs = performance.now();
    await changeLinks(cluster, { down: [], cut: shape.cut });
    const promotion = oldPrimary === undefined ? '' : await promoteOther(context, cluster, shape);
    // Without a promotion, either node of a pair may be the primary.
    const side = mayConfirm(names, shape.cut, quorumOf(names.length, cluster.tolerates)).filter(
      (name) => oldPrimary === undefined || !shape.harmed.includes(name),
    );
    let confirmed = await cluster.waitForConfirmsBy(side, NO_LIMIT, lastsMs);
    const leftMs = startMs + electionMs - performance.now();
    if (leftMs > 0 && confirmed < moreConfirms)
      confirmed += await cluster.waitForConfirmsBy(side, moreConfirms - confirmed, leftMs);
    const swallowed = await cluster.links.swallowedPackets();
    const tookMs = Math.round(performance.now() - startMs);
    const detail = `${shape.detail} for ${tookMs} ms${promotion}, ${confirmed} confirmed meanwhile, ${swallowed} packets lost`;
    const outcome = { detail, side, confirmed, swallowed, harmed: shape.harmed };
    const mayStandStill = names.length === 2 && oldPrimary === undefined;
    return mayStandStill && confirmed === 0 && swallowed > 0
      ? judgeStandstill(context, cluster, outcome)
      : judge(outcome);
  },
  heal: healLinks,
};

interface Outcome {
  detail: string;
  /** Nodes that might confirm. */
  side: readonly string[];
  confirmed: number;
  swallowed: number;
  harmed: string[];
}

function judge({ detail, side, confirmed, swallowed, harmed }: Outcome): Injection {
  const why =
    swallowed === 0
      ? 'no packet was sent on a cut link'
      : side.length === 0
        ? 'no side was large enough to confirm'
        : confirmed === 0
          ? `nothing was confirmed meanwhile, although ${list(side)} might`
          : undefined;
  const injection = why === undefined ? hit(detail, 'none', []) : miss(`${detail}; ${why}`);
  return { ...injection, nodes: harmed };
}

/**
 * Judges the cut of a pair whose nodes confirm only together, and of which none was promoted: nothing can be confirmed
 * meanwhile. It hit if the pair confirms again after the healing.
 */
async function judgeStandstill(
  context: FaultContext,
  cluster: ClusterContext,
  { detail, harmed }: Outcome,
): Promise<Injection> {
  await healLinks(context);
  const waitMs = Math.min(cluster.electionMs, MAX_ELECTION_MS);
  const again = await cluster.waitForConfirmsBy(nodeNames(cluster), 1, waitMs);
  const injection =
    again > 0
      ? hit(`${detail}; confirmed again after the healing`, 'none', [])
      : miss(`${detail}; nothing was confirmed in ${waitMs / 1000} s after the healing`);
  return { ...injection, nodes: harmed };
}

/** Promotes a node of the side that is left. Resolves to a phrase for people. */
async function promoteOther(
  { random, signal }: FaultContext,
  cluster: ClusterContext,
  { harmed }: Shape,
): Promise<string> {
  await sleep(random.int(MAX_NOTICE_MS), signal);
  const others = nodeNames(cluster).filter((name) => !harmed.includes(name));
  const candidates = sample(random, others, others.length);
  const timeoutMs = Math.min(cluster.electionMs, MAX_ELECTION_MS);
  return `, ${await promoteOne(cluster, candidates, timeoutMs, signal)}`;
}

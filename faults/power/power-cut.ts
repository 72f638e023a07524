import type { Fault, FaultContext, Injection } from '../fault.js';
import { hit, miss } from '../injection.js';
import { noteDown } from '../link/down-nodes.js';
import { sample } from '../random-choice.js';
import { sleep } from '../waiting.js';
import { blocklogAvailability } from './blocklog-availability.js';
import { type CutNode, cutNodes, cuttable, type NodesCut } from './cut-nodes.js';

/** Upper bound in ms of the time between two cuts that come one after the other. */
const MAX_BETWEEN_MS = 500;

/**
 * Simulates a power cut of whole machines; see `cutNodes`. The power of several nodes is cut at the same instant, or of one
 * after the other.
 */
export const powerCut: Fault = {
  name: 'power-cut',
  family: 'power-cut',
  summary: 'everything not yet flushed is gone, kernel and all: confirmed means flushed',
  needs: { target: 'up', disk: 'power', nodes: 'scope' },
  actsOnStoredData: true,
  available: async () => blocklogAvailability(),
  async inject(context: FaultContext): Promise<Injection> {
    const nodes = cuttable(context.nodes);
    if (nodes.length === 0 || nodes.length < context.nodes.length)
      return miss('the data is on a disk whose power cannot be cut');
    const { random } = context;
    const oneByOne = nodes.length > 1 && random.int(4) === 0;
    noteDown(context, nodes);
    const cuts = oneByOne
      ? await cutOneByOne(context, sample(random, nodes, nodes.length))
      : [await cutNodes(nodes, random)];
    const stoppedMs = Math.min(...cuts.map((cut) => cut.stoppedMs));
    const lists = cuts.map(({ lostFiles }) => lostFiles).filter((files) => files !== undefined);
    const detail = cuts.map((cut) => cut.detail).join(', then ');
    const services = context.services
      .map(({ name }) => name)
      .filter((name) => cuts.some((cut) => cut.services.includes(name)));
    // Nothing that the target wrote after the stop is on the disk. On a busy machine the steps after it take seconds.
    const failingMs = Math.round(performance.now() - stoppedMs);
    return {
      ...hit(detail, 'machine', services),
      ...(context.cluster && { nodes: nodes.map(({ name }) => name) }),
      failingMs,
      ...(lists.length > 0 && { lostFiles: lists.flat() }),
    };
  },
  heal: async () => {},
};

async function cutOneByOne({ random, signal }: FaultContext, nodes: readonly CutNode[]): Promise<NodesCut[]> {
  const cuts: NodesCut[] = [];
  for (const node of nodes) {
    if (cuts.length > 0) await sleep(random.int(MAX_BETWEEN_MS), signal);
    cuts.push(await cutNodes([node], random));
  }
  return cuts;
}

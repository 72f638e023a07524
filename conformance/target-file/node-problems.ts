import { didYouMean } from '../nearest.js';
import { CALLS_THE_RECEIVER } from './claim-problems.js';
import { CLUSTER_FAULT_NAMES, type FaultName, type TargetFile } from './definition.js';

/** Faults that need several nodes. */
const CLUSTER_FAULTS: readonly FaultName[] = CLUSTER_FAULT_NAMES;

/** Returns every mistake in the keys of a cluster, each as `key path: what was expected`. */
export function nodeProblems(target: TargetFile): string[] {
  const { nodes, services, guarantee, promote, protocol } = target;
  if (nodes === undefined) return problemsWithoutNodes(target);
  const problems: string[] = [];
  nodes.forEach((name, index) => {
    if (name === 'localhost')
      problems.push(
        `nodes.${index}: localhost: expected another name: on each node it means the node itself`,
      );
    if (nodes.indexOf(name) < index)
      problems.push(`nodes.${index}: ${name} occurs twice, expected another name`);
  });
  for (const [service, { nodes: own = [] }] of Object.entries(services))
    own.forEach((name, index) => {
      const place = `services.${service}.nodes.${index}`;
      if (!nodes.includes(name))
        problems.push(
          `${place}: ${name}: no such node, expected one of ${nodes.join(', ')}${didYouMean(name, nodes)}`,
        );
      else if (own.indexOf(name) < index)
        problems.push(`${place}: ${name} occurs twice, expected another name`);
    });
  const empty = nodes.filter((name) =>
    Object.values(services).every(({ nodes: own }) => own !== undefined && !own.includes(name)),
  );
  for (const name of empty)
    problems.push(`nodes.${nodes.indexOf(name)}: no service runs on ${name}, expected at least one`);
  if (CALLS_THE_RECEIVER.includes(protocol))
    problems.push(
      `nodes: expected a protocol in which the kit asks for the messages: the nodes cannot reach the receiver of ${protocol}`,
    );
  if (guarantee.order !== undefined)
    problems.push(
      'guarantee.order: expected no claim of an order: the kit receives from every node, and messages of several connections have no order',
    );
  if (guarantee.cluster === undefined)
    problems.push('guarantee.cluster: expected { "tolerates": N }, because the target has nodes');
  else if (guarantee.cluster.tolerates >= nodes.length)
    problems.push(
      `guarantee.cluster.tolerates: expected a number below ${nodes.length}, the number of nodes, found ${guarantee.cluster.tolerates}`,
    );
  else if (guarantee.cluster.tolerates === 0) {
    const useless = guarantee.faults.filter((fault) => fault === 'node-loss' || fault === 'cut-then-elect');
    for (const fault of useless)
      problems.push(
        `guarantee.faults.${guarantee.faults.indexOf(fault)}: ${fault}: expected guarantee.cluster.tolerates of at least 1`,
      );
  }
  if (guarantee.faults.includes('cut-then-elect') && nodes.length < 3)
    problems.push(
      `guarantee.faults.${guarantee.faults.indexOf('cut-then-elect')}: cut-then-elect: expected at least three nodes`,
    );
  if (promote !== undefined && !guarantee.faults.some((fault) => CLUSTER_FAULTS.includes(fault)))
    problems.push(
      `promote: expected one of ${CLUSTER_FAULTS.join(', ')} in guarantee.faults: nothing else uses it`,
    );
  return problems;
}

function problemsWithoutNodes({ services, guarantee, promote }: TargetFile): string[] {
  const problems = guarantee.faults.flatMap((fault, index) =>
    CLUSTER_FAULTS.includes(fault)
      ? [`guarantee.faults.${index}: ${fault}: expected nodes in the target file`]
      : [],
  );
  if (guarantee.cluster !== undefined)
    problems.push('guarantee.cluster: expected nodes in the target file, or no such claim');
  if (promote !== undefined) problems.push('promote: expected nodes in the target file, or no such command');
  for (const [service, { nodes }] of Object.entries(services))
    if (nodes !== undefined)
      problems.push(`services.${service}.nodes: expected nodes in the target file, or no such key`);
  return problems;
}

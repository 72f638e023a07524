import type { Deployment } from '../runtime.js';

/** A deployment of one node. */
export interface NodeDeployment {
  node: string;
  deployment: Deployment;
}

/** Returns the deployments of all nodes as one. A command that belongs to no service runs on the first node. */
export function joinDeployments(nodes: readonly NodeDeployment[]): Deployment {
  const all = nodes.map(({ deployment }) => deployment);
  const [first] = all;
  if (first === undefined) throw new Error('expected at least one node');
  return {
    services: all.flatMap(({ services }) => services),
    runCommand: (name, command, timeoutMs) => first.runCommand(name, command, timeoutMs),
    async handOver() {
      for (const deployment of all) await deployment.handOver?.();
    },
    async reboot() {
      const problems = await Promise.all(all.map((deployment) => deployment.reboot()));
      return problems.find((problem) => problem !== undefined);
    },
    stop: (graceMs) => settleAll(all.map((deployment) => deployment.stop(graceMs))),
    destroy: () => settleAll(all.map((deployment) => deployment.destroy())),
    destroyNow() {
      for (const deployment of all) deployment.destroyNow();
    },
  };
}

/** Waits for all, so that a node that fails leaves no other one behind. @throws the first error. */
async function settleAll(tasks: readonly Promise<void>[]): Promise<void> {
  const results = await Promise.allSettled(tasks);
  const failed = results.find((result) => result.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
}

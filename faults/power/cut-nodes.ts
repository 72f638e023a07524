import type { FaultNode, Loss, LostFile, PowerDisk, Random } from '../fault.js';
import { describeCacheLoss } from '../files/loss-watch.js';
import { EXIT_TIMEOUT_MS } from '../injection.js';

/** A node whose power can be cut. */
export type CutNode = FaultNode & { readonly powerDisk: PowerDisk };

/** The effect of a power cut of one or more nodes. */
export interface NodesCut {
  /** One line for people. */
  detail: string;
  /** Names of the services of these nodes. */
  services: string[];
  /** Files that the cut took something from; undefined when nothing compared them. */
  lostFiles: LostFile[] | undefined;
  /** Time of `performance.now()` at which the first disk stopped. Nothing that came later is on the disks. */
  stoppedMs: number;
}

/** Returns the nodes whose power can be cut. */
export function cuttable(nodes: readonly FaultNode[]): CutNode[] {
  return nodes.filter((node): node is CutNode => node.powerDisk !== undefined);
}

/**
 * Cuts the power of these nodes at the same instant. First all disks stop, in the middle of their work. Then all processes
 * of the nodes are killed. Then each disk is put into the state that a power cut at that moment leaves. The services stay
 * down.
 *
 * Between the first two steps the nodes may still answer, but such an answer can rest only on earlier work of the disk: an
 * answer that has to wait for the disk never comes. So everything that is confirmed must be on the disk. Stopping the
 * processes in between would not help, because a process that waits for the disk does not react to SIGSTOP.
 * @param steps.beforeKill runs when the disks are stopped and the processes still live.
 * @param steps.whileStopped runs when the processes were killed and the disks are still stopped.
 */
export async function cutNodes(
  nodes: readonly CutNode[],
  random: Random,
  { beforeKill, whileStopped }: { beforeKill?: () => Promise<void>; whileStopped?: () => Promise<void> } = {},
): Promise<NodesCut> {
  const stoppedMs = performance.now();
  const services = nodes.flatMap((node) => node.services);
  const stops = await Promise.allSettled(nodes.map(async ({ powerDisk }) => powerDisk.stop()));
  const cutPoints: number[] = [];
  try {
    for (const stop of stops) {
      if (stop.status === 'rejected') throw stop.reason;
      cutPoints.push(stop.value);
    }
    await beforeKill?.();
    const toKill = nodes.filter(({ powerDisk }) => !powerDisk.killsTarget);
    await Promise.all(toKill.flatMap((node) => node.services.map((service) => service.signal('SIGKILL'))));
    await whileStopped?.();
  } finally {
    await resumeAll(nodes.filter((_, index) => stops[index]?.status === 'fulfilled'));
  }
  await Promise.all(services.map((service) => service.waitForExit(EXIT_TIMEOUT_MS)));
  // The nodes are dead and their page caches are still there: the files are what they saw of them last.
  for (const { losses } of nodes) losses?.before();
  const details: string[] = [];
  let lostFiles: LostFile[] | undefined;
  for (const [index, node] of nodes.entries()) {
    const { powerDisk, losses, name } = node;
    const { detail, lostPages } = await powerDisk.cut(cutPoints[index] ?? 0, chooseLoss(random), random);
    const lost = losses?.after(lostPages);
    const whole = lost === undefined ? detail : `${detail}; ${describeCacheLoss(lost)}`;
    details.push(name === '' ? whole : `${name}: ${whole}`);
    if (lost !== undefined) lostFiles = [...(lostFiles ?? []), ...lost];
  }
  return {
    detail: details.join('; '),
    services: services.map(({ name }) => name),
    lostFiles,
    stoppedMs,
  };
}

/** Lets all disks continue, also when one of them cannot. */
async function resumeAll(nodes: readonly CutNode[]): Promise<void> {
  const resumed = await Promise.allSettled(nodes.map(async ({ powerDisk }) => powerDisk.resume()));
  for (const result of resumed) if (result.status === 'rejected') throw result.reason;
}

/**
 * Draws the loss. The harshest loss is the most frequent, because a drive may lose everything that was not
 * flushed.
 */
function chooseLoss(random: Random): Loss {
  const dice = random.int(10);
  if (dice < 6) return 'all-lost';
  return dice < 8 ? 'prefix' : 'torn';
}

import { withDescendants } from '../../host/descendants.js';
import { adoptedAmong, adoptOrphans } from '../../host/orphans.js';
import { allProcesses, environmentOf, mountNamespaceOf, type ProcessEntry } from '../../host/processes.js';
import { RUN_VARIABLE } from '../runtime.js';

/** The watches of all deployments of this process that are not destroyed yet. */
const watches = new Set<EscapeWatch>();

/**
 * Finds the processes of one deployment that have escaped from their service: daemons that have left its process
 * group, ended their parent and cleared their environment. The kit adopts them, because it is the subreaper of its
 * descendants. Each start of a service has a mount namespace of its own, which tells whose daemon it is. Where
 * namespaces cannot be made, a daemon belongs to the only deployment that runs.
 */
export class EscapeWatch {
  readonly #runId: string;
  readonly #sinceTicks: number;
  readonly #serviceCount: number;
  readonly #serviceOf = new Map<string, string>();
  readonly #kitNamespace = mountNamespaceOf(process.pid);

  /**
   * @param runId the run id in the environment of the deployment's processes.
   * @param sinceTicks start of the deployment, in clock ticks since boot.
   * @param serviceCount number of its services.
   */
  constructor(runId: string, sinceTicks: number, serviceCount: number) {
    this.#runId = runId;
    this.#sinceTicks = sinceTicks;
    this.#serviceCount = serviceCount;
    adoptOrphans();
    watches.add(this);
  }

  /**
   * Notes the mount namespace of a process of a service.
   * @returns false when the process has none of its own (yet).
   */
  note(service: string, pid: number): boolean {
    const namespace = mountNamespaceOf(pid);
    if (namespace === undefined || namespace === this.#kitNamespace) return false;
    this.#serviceOf.set(namespace, service);
    return true;
  }

  /**
   * Lists the escaped processes and their descendants.
   * @param service only those of this service. Default: those of all services.
   */
  list(service?: string, processes: readonly ProcessEntry[] = allProcesses()): number[] {
    const roots = this.#roots(service, processes);
    return roots.size === 0 ? [] : [...withDescendants(roots, processes)];
  }

  #roots(service: string | undefined, processes: readonly ProcessEntry[]): Set<number> {
    const mayBeUnknown = watches.size === 1 && (service === undefined || this.#serviceCount === 1);
    const roots = adoptedAmong(processes).filter(({ pid, startTicks }) => {
      if (startTicks < this.#sinceTicks) return false;
      const runId = environmentOf(pid, RUN_VARIABLE);
      // A process with the mark of the run has not escaped. One with another mark belongs to another kit.
      if (runId !== undefined) return service === undefined && runId === this.#runId;
      const owner = this.#serviceOf.get(mountNamespaceOf(pid) ?? '');
      return owner === undefined ? mayBeUnknown : service === undefined || owner === service;
    });
    return new Set(roots.map(({ pid }) => pid));
  }

  /** Ends the watch. May be called twice. */
  end(): void {
    watches.delete(this);
  }
}

import { closeSync, openSync } from 'node:fs';
import { readLinkOf } from './processes.js';

/**
 * Mount namespaces that are held open. The kernel gives the number of a namespace that has ended to the next one, which may
 * belong to another run. It cannot do so while the namespace is held.
 */
export class HeldNamespaces {
  readonly #held = new Map<string, number>();

  /** Returns the number of held namespaces. */
  get size(): number {
    return this.#held.size;
  }

  /**
   * Holds the mount namespace of a process. Does nothing when the process has ended.
   * @param except namespaces that are not to be held.
   */
  hold(pid: number, except: ReadonlySet<string | undefined>): void {
    let fd: number;
    try {
      fd = openSync(`/proc/${pid}/ns/mnt`, 'r');
    } catch {
      return;
    }
    const name = readLinkOf(`/proc/self/fd/${fd}`);
    if (name === undefined || except.has(name) || this.#held.has(name)) closeSync(fd);
    else this.#held.set(name, fd);
  }

  /** @param name a namespace in the form of `mountNamespaceOf`. */
  has(name: string | undefined): boolean {
    return name !== undefined && this.#held.has(name);
  }

  /** Ends the hold. The mounts of a namespace without processes are gone afterwards. */
  release(): void {
    for (const fd of this.#held.values()) closeSync(fd);
    this.#held.clear();
  }
}

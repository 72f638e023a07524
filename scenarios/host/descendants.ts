import type { ProcessEntry } from './processes.js';

/**
 * Returns the processes and all their descendants. The list may be in any order: process ids wrap around, so
 * that a child can have a lower id than its parent.
 */
export function withDescendants(
  roots: ReadonlySet<number>,
  processes: readonly Pick<ProcessEntry, 'pid' | 'parent'>[],
): Set<number> {
  const known = new Set(roots);
  for (let previousSize = -1; previousSize !== known.size; ) {
    previousSize = known.size;
    for (const { pid, parent } of processes) if (known.has(parent)) known.add(pid);
  }
  return known;
}

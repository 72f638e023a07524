/**
 * The meaning of each byte of the lock file. The kernel releases a lock when its holder dies, whatever
 * namespace the holder runs in. A process id would not identify the holder: the worker of every container may
 * be process 1, and process ids are used again.
 */
export const LOCK = {
  /** Byte of the shared mutual exclusion lock over the index (patent [0018]). */
  mutex: 0,
  /** Byte that a process holds while it opens the queue, so that only one process restores it. */
  opening: 1,
  /** Byte that every process with the queue open holds shared. */
  users: 2,
  /** Byte that the one sync helper of the data file holds as long as it lives. No other process takes it. */
  helper: 3,
  /** Byte that the worker holds that syncs the index. */
  indexSync: 4,
  /**
   * Byte of the process that syncs the data file: the helper as long as it lives, or a process without a helper for
   * one sync. It is not the byte of the helper, so a helper that starts during such a sync can wait for its end.
   */
  dataSync: 5,
  /** First byte of the worker slots. The worker in slot n holds byte `firstSlot + n` as long as it lives. */
  firstSlot: 64,
} as const;

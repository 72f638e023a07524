import type { PowerDisk } from '../../faults/fault.js';

/** Returns the disk as a fault sees it, with some of its methods replaced. */
export function wrapDisk(disk: PowerDisk, replaced: Partial<Pick<PowerDisk, 'stop' | 'cut'>>): PowerDisk {
  return {
    backend: disk.backend,
    killsTarget: disk.killsTarget,
    writeErrors: disk.writeErrors,
    stall: disk.stall,
    stop: () => disk.stop(),
    resume: () => disk.resume(),
    cut: (moment, loss, random) => disk.cut(moment, loss, random),
    ...replaced,
  };
}

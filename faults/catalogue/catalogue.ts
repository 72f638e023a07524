import type { Fault } from '../fault.js';
import { linkDelay, linkLoss } from '../link/impair.js';
import { partition } from '../link/partition.js';
import { staleLink } from '../link/stale-link.js';
import { cutThenElect } from '../power/cut-then-elect.js';
import { diskStall } from '../power/disk-stall.js';
import { nodeLossPower } from '../power/node-loss-power.js';
import { powerCut } from '../power/power-cut.js';
import { clock } from '../process/clock.js';
import { kill } from '../process/kill.js';
import { killOne, killOneNamed } from '../process/kill-one.js';
import { killRecovery } from '../process/kill-recovery.js';
import { killSyscall } from '../process/kill-syscall.js';
import { pause } from '../process/pause.js';
import { dataRot } from '../storage/data-rot.js';
import { diskFull } from '../storage/disk-full.js';
import { full } from '../storage/full.js';
import { indexLoss } from '../storage/index-loss.js';
import { ioError } from '../storage/io-error.js';
import { nodeLoss } from '../storage/node-loss.js';
import { tear } from '../storage/tear.js';

/** Every fault, in the order in which the rounds use them. */
export const FAULTS: readonly Fault[] = [
  kill,
  killOne,
  tear,
  indexLoss,
  pause,
  killSyscall,
  dataRot,
  full,
  ioError,
  killRecovery,
  clock,
  diskFull,
  powerCut,
  diskStall,
  partition,
  staleLink,
  linkDelay,
  linkLoss,
  cutThenElect,
  nodeLoss,
  nodeLossPower,
];

/** Returns the faults that a target claims to survive, if these are the families that its guarantee names. */
export function claimedFaults(families: Iterable<string>): Fault[] {
  const claimed = new Set(families);
  return FAULTS.filter(({ family, alsoClaimed = [] }) =>
    [family, ...alsoClaimed].every((name) => claimed.has(name)),
  );
}

/** Finds a fault by its name. A name may include a service: `kill-one:worker-a`. */
export function findFault(name: string): Fault | undefined {
  return FAULTS.find((fault) => fault.name === name) ?? killOneNamed(name);
}

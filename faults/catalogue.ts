import { clock } from './clock.js';
import { dataRot } from './data-rot.js';
import { diskFull } from './disk-full.js';
import type { Fault } from './fault.js';
import { full } from './full.js';
import { indexLoss } from './index-loss.js';
import { ioError } from './io-error.js';
import { kill } from './kill.js';
import { killNamed, killOne } from './kill-one.js';
import { killRecovery } from './kill-recovery.js';
import { killSyscall } from './kill-syscall.js';
import { pause } from './pause.js';
import { powerCut } from './power-cut.js';
import { tear } from './tear.js';

/** Every fault, in the order in which rounds take their turns. */
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
];

/** The fault of that name, one that is done to a named service among them (`kill-one:worker-a`). */
export function faultNamed(name: string): Fault | undefined {
  return FAULTS.find((fault) => fault.name === name) ?? killNamed(name);
}

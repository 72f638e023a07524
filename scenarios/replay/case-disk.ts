import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { KitError, messageOf } from '../../conformance/errors.js';
import { materialise, openRecording, type Recording } from '../../faults/crash-states/materialise.js';
import { copySparse } from '../../faults/power/sparse.js';
import { LogWritesError } from '../../faults/write-log/log-writes.js';
import type { CrashModel } from '../../faults/write-log/model.js';
import { type CrashState, parseState } from '../../faults/write-log/state.js';
import type { Bundle } from '../bundle/bundle.js';
import type { StateCase } from '../bundle/manifest.js';
import { type RecordedDisk, recordedDiskIn } from './mounted-disk.js';

/** The recorded disk on which the state of a bundle is a cut. */
export interface CaseDisk {
  /** Of the run; or, where a recovery was cut, of that recovery, from the disk that the run's cut had left. */
  disk: RecordedDisk;
  state: CrashState;
  /** The cut of the run that the recovery began from; undefined when no recovery was cut. */
  outer: CrashState | undefined;
}

/**
 * Finds the state of a bundle, and makes the disk that its recovery began from where it is a cut of one.
 * @param dir gets that disk.
 * @throws KitError bad-bundle when the bundle has no recorded disk, a shorter log than it says, or a state that cannot be.
 */
export function caseDisk(bundle: Bundle, at: StateCase, dir: string): CaseDisk {
  const { file } = bundle;
  const run = recordedDiskIn(bundle.dir, at.end);
  if (run === undefined) throw new KitError('bad-bundle', `${file}: expected a disk and its log in it`);
  const [address = '', inner] = at.state.split('>');
  try {
    const state = possible(file, address, run.recording.model);
    if (inner === undefined) return { disk: run, state, outer: undefined };
    if (at.recovery === undefined)
      throw new KitError('bad-bundle', `${file}: crash state ${at.state}: expected the log of its recovery`);
    const recording = openLog(bundle, at.recovery);
    const image = join(dir, 'recovery.img');
    copySparse(run.image, image);
    materialise(run.recording, state, image);
    run.recording.close();
    return { disk: { image, recording }, state: possible(file, inner, recording.model), outer: state };
  } catch (error) {
    run.recording.close();
    throw error;
  }
}

function openLog({ file, dir }: Bundle, { log, end }: NonNullable<StateCase['recovery']>): Recording {
  const path = join(dir, log);
  if (!existsSync(path)) throw new KitError('bad-bundle', `${file}: expected ${log} in it`);
  try {
    return openRecording(path, end);
  } catch (error) {
    if (error instanceof LogWritesError) throw new KitError('bad-bundle', messageOf(error), { cause: error });
    throw error;
  }
}

function possible(file: string, address: string, model: CrashModel): CrashState {
  let state: CrashState;
  try {
    state = parseState(address);
  } catch (error) {
    throw new KitError('bad-bundle', `${file}: ${messageOf(error)}`, { cause: error });
  }
  const problem = model.problem(state);
  if (problem !== undefined) throw new KitError('bad-bundle', `${file}: crash state ${address}: ${problem}`);
  return state;
}

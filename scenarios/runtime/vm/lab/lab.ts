import { rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { z } from 'zod';
import { KitError, messageOf } from '../../../../conformance/errors.js';
import { removeTree } from '../../../../faults/files/remove-tree.js';
import { until } from '../../../../faults/waiting.js';
import { makeDirectories } from '../../../host/directories.js';
import { type FileLock, tryLock, waitForLock } from '../../../host/file-lock.js';
import { readOwnFile } from '../../../host/own-files.js';
import { bootId } from '../../../host/processes.js';
import { newRunId, Registry, stateDirectory } from '../../../host/registry.js';
import { connectEngine } from '../../docker/engine.js';
import { buildAvailability, ensureLabImage, imageKey, waitForEngine } from './image.js';
import { isMachineAlive, killMachine, Machine, type MachineAddress } from './machine.js';
import { makeRootImage } from './root-image.js';

/** The VM that `lab up` left running, as recorded for other programs. */
export interface LabRecord {
  runId: string;
  key: string;
  boot: string;
  accelerator: string;
  upAt: string;
  address: MachineAddress;
}

/** State of the VM that stays up between runs. */
export type LabStatus =
  | { kind: 'down' }
  | { kind: 'up'; record: LabRecord }
  | { kind: 'stale'; record: LabRecord; why: string };

const RESUME_TIMEOUT_MS = 20_000;
const KILL_TIMEOUT_MS = 10_000;
/** Longer than a build, which `lab up` may do. */
const RECORD_LOCK_TIMEOUT_MS = 1_500_000;

/** Checks whether the VM that `lab up` started can still be used. */
export async function labStatus(): Promise<LabStatus> {
  const record = readRecord();
  if (record === undefined) return { kind: 'down' };
  const stale = (why: string): LabStatus => ({ kind: 'stale', record, why });
  if (record.boot !== bootId()) return stale('the machine has been started again since');
  if (!isMachineAlive(record.address)) return stale(`its process ${record.address.pid} has gone`);
  if (record.key !== imageKey()) return stale('it was made by another version of the kit or of Node');
  try {
    (await Machine.find(record.address)).agent.close();
  } catch (error) {
    return stale(`it does not answer on port ${record.address.agentPort}: ${messageOf(error)}`);
  }
  return { kind: 'up', record };
}

/**
 * Starts a VM that stays up until `labDown`. A VM that is already up is left as it is.
 * @throws KitError target-unavailable when it cannot be built or started.
 */
export async function labUp(log: (line: string) => void): Promise<LabRecord> {
  const lock = await lockRecord(log);
  try {
    return await labUpLocked(log);
  } finally {
    lock.release();
  }
}

async function labUpLocked(log: (line: string) => void): Promise<LabRecord> {
  const buildable = buildAvailability();
  if (!buildable.available)
    throw new KitError('target-unavailable', `the lab VM: ${buildable.why}; ${buildable.remedy}`);
  const status = await labStatus();
  if (status.kind === 'up') return status.record;
  if (status.kind === 'stale') {
    log(`lab: a stale VM is taken away: ${status.why}`);
    await labDownLocked();
  }
  const registry = new Registry(newRunId());
  const { machine, accelerator } = await startMachine(registry, log).catch((error: unknown) => {
    registry.close();
    throw error;
  });
  const { runId } = registry;
  const record: LabRecord = {
    ...{ runId, key: imageKey(), boot: bootId(), accelerator },
    ...{ upAt: new Date().toISOString(), address: machine.address },
  };
  writeFileSync(recordFile(), `${JSON.stringify(record)}\n`, { mode: 0o600 });
  // Forget the VM in the registry: from here on it is not the residue of a killed run, and `clean` must not
  // remove it.
  registry.release();
  machine.agent.close();
  return record;
}

/**
 * Ends the VM that `labUp` started and removes everything of it except the image.
 * @returns true when there was a VM.
 */
export async function labDown(log: (line: string) => void): Promise<boolean> {
  const lock = await lockRecord(log);
  try {
    return await labDownLocked();
  } finally {
    lock.release();
  }
}

async function labDownLocked(): Promise<boolean> {
  const record = readRecord();
  if (record === undefined) return false;
  if (record.boot === bootId()) killMachine(record.address);
  await waitUntilGone(record);
  removeTree(record.address.dir);
  rmSync(recordFile(), { force: true });
  return true;
}

/** A VM for one run: the one that is up if no other process uses it, or a new one that ends with the run. */
export interface BorrowedMachine {
  machine: Machine;
  accelerator: string;
  giveBack(): Promise<void>;
}

/**
 * Provides a VM for one run.
 * @throws KitError target-unavailable when none is up and none can be started.
 */
export async function borrowMachine(
  registry: Registry,
  log: (line: string) => void,
): Promise<BorrowedMachine> {
  const status = await labStatus();
  if (status.kind === 'stale') log(`lab: the VM that is up is stale and not used: ${status.why}`);
  const claim = status.kind === 'up' ? tryLock(claimFile()) : undefined;
  if (status.kind === 'up' && claim === undefined)
    log('lab: another run uses the VM that is up: starting one for this run');
  if (status.kind === 'up' && claim !== undefined) {
    const machine = await Machine.find(status.record.address).catch((error: unknown) => {
      claim.release();
      throw error;
    });
    const giveBack = async () => {
      machine.agent.close();
      claim.release();
    };
    return { machine, accelerator: status.record.accelerator, giveBack };
  }
  const { machine, accelerator } = await startMachine(registry, log);
  const killNow = () => machine.killNow();
  process.once('exit', killNow);
  const giveBack = async () => {
    process.removeListener('exit', killNow);
    await machine.stop();
    removeTree(machine.address.dir);
  };
  return { machine, accelerator, giveBack };
}

async function startMachine(registry: Registry, log: (line: string) => void) {
  const startMs = performance.now();
  try {
    const image = await ensureLabImage({
      registry,
      log,
      addImages: async (port) => {
        await makeRootImage(await connectEngine(`tcp://127.0.0.1:${port}`), join(stateDirectory(), 'images'));
      },
    });
    const dir = join(machinesDirectory(), registry.runId);
    const { files, accelerator } = image;
    const machine = await Machine.start(
      { files, accelerator, start: 'resumed', dir, registry },
      RESUME_TIMEOUT_MS,
    );
    // Set the clock: it stood still while the machine was saved.
    await machine.agent.run(['date', '-s', `@${Math.round(Date.now() / 1000)}`], RESUME_TIMEOUT_MS);
    await waitForEngine(machine.address.enginePort);
    log(`lab: a VM (${accelerator}) is up after ${((performance.now() - startMs) / 1000).toFixed(1)} s`);
    return { machine, accelerator };
  } catch (error) {
    if (error instanceof KitError) throw error;
    throw new KitError('target-unavailable', `the lab VM: ${messageOf(error)}`, { cause: error });
  }
}

async function waitUntilGone({ address }: LabRecord): Promise<void> {
  if (!(await until(() => !isMachineAlive(address), KILL_TIMEOUT_MS))) {
    throw new KitError('kit-failed', `the lab VM, process ${address.pid}, cannot be killed`);
  }
}

/** Locks the record of the VM that is up: two `lab up` at once must not start two VMs. */
async function lockRecord(log: (line: string) => void): Promise<FileLock> {
  makeDirectories(join(stateDirectory(), 'lab'));
  const wait = () => log('lab: another lab up or lab down is under way: waiting for it');
  return waitForLock(join(stateDirectory(), 'lab/lock'), RECORD_LOCK_TIMEOUT_MS, wait);
}

const Record = z.object({
  ...{ runId: z.string(), key: z.string(), boot: z.string(), accelerator: z.string(), upAt: z.string() },
  address: z.object({
    ...{ pid: z.number().int().positive(), startTicks: z.number() },
    ...{ agentPort: z.number(), enginePort: z.number(), dir: z.string() },
  }),
});

/**
 * Reads the record of the VM that is up. The kit ends the process and removes the directory that it names, so it
 * counts only when this user alone could write it, and the directory is one in which the kit makes its VMs.
 * @throws KitError bad-usage when it is not this user's own.
 */
function readRecord(): LabRecord | undefined {
  const file = recordFile();
  let text: string;
  try {
    text = readOwnFile(file);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw new KitError('bad-usage', `${file} is not believed: ${messageOf(error)}; remove it`, {
      cause: error,
    });
  }
  const record = Record.safeParse(parseJson(text)).data;
  if (record === undefined) return undefined;
  const { dir } = record.address;
  if (dirname(dir) === machinesDirectory() && basename(dir) !== '..') return record;
  throw new KitError(
    'bad-usage',
    `${file} is not believed: it names ${dir}, expected a directory in ${machinesDirectory()}; remove it`,
  );
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Returns the directory in which each running VM has one of its own. */
function machinesDirectory(): string {
  return join(stateDirectory(), 'lab/vm');
}

function recordFile(): string {
  return join(stateDirectory(), 'lab/up.json');
}

/** Returns the file that the run locks that uses the VM that is up. */
function claimFile(): string {
  return join(stateDirectory(), 'lab/in-use');
}

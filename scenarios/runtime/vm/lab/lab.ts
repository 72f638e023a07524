import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { KitError, messageOf } from '../../../../conformance/errors.js';
import { until } from '../../../../faults/waiting.js';
import { bootId, processEntry } from '../../../host/processes.js';
import { newRunId, Registry, stateDirectory } from '../../../host/registry.js';
import { connectEngine } from '../../docker/engine.js';
import { buildAvailability, imageKey, labImage, waitForEngine } from './image.js';
import { killMachine, Machine, type MachineAddress, machineLives } from './machine.js';
import { makeRootImage } from './root-image.js';

/** The VM that `lab up` left running, as it is written down for other programs. */
export interface UpRecord {
  runId: string;
  key: string;
  boot: string;
  accelerator: string;
  upAt: string;
  address: MachineAddress;
}

/** What there is of a VM that stays up. */
export type LabStatus =
  | { kind: 'down' }
  | { kind: 'up'; record: UpRecord }
  | { kind: 'stale'; record: UpRecord; why: string };

const RESUMED_TIMEOUT_MS = 20_000;
const KILL_TIMEOUT_MS = 10_000;

export function imagesDirectory(): string {
  return join(stateDirectory(), 'lab/images');
}

/** Looks whether the VM that `lab up` started still is one that can be used. */
export async function labStatus(): Promise<LabStatus> {
  const record = readRecord();
  if (record === undefined) return { kind: 'down' };
  const stale = (why: string): LabStatus => ({ kind: 'stale', record, why });
  if (record.boot !== bootId()) return stale('the machine has been started again since');
  if (!machineLives(record.address)) return stale(`its process ${record.address.pid} has gone`);
  if (record.key !== imageKey()) return stale('it was made by another version of the kit or of Node');
  try {
    (await Machine.find(record.address)).agent.close();
  } catch (error) {
    return stale(`it does not answer on port ${record.address.agentPort}: ${messageOf(error)}`);
  }
  return { kind: 'up', record };
}

/**
 * Starts a VM that stays up until `labDown`; one that is up already is left as it is.
 * @throws KitError target-unavailable when it cannot be built or started.
 */
export async function labUp(say: (line: string) => void): Promise<UpRecord> {
  const able = buildAvailability(imagesDirectory());
  if (!able.available) throw new KitError('target-unavailable', `the lab VM: ${able.why}; ${able.remedy}`);
  const status = await labStatus();
  if (status.kind === 'up') return status.record;
  if (status.kind === 'stale') {
    say(`lab: a stale VM is taken away: ${status.why}`);
    await labDown();
  }
  const registry = new Registry(newRunId());
  const { machine, accelerator } = await startMachine(registry, say).catch((error: unknown) => {
    registry.close();
    throw error;
  });
  const { runId } = registry;
  const record: UpRecord = {
    ...{ runId, key: imageKey(), boot: bootId(), accelerator },
    ...{ upAt: new Date().toISOString(), address: machine.address },
  };
  writeFileSync(recordFile(), `${JSON.stringify(record)}\n`);
  // From here on it is not what a killed run left, but what somebody has asked for.
  registry.close();
  machine.agent.close();
  return record;
}

/** Ends the VM that `labUp` started and removes all of it but the image; true when there was one. */
export async function labDown(): Promise<boolean> {
  const record = readRecord();
  if (record === undefined) return false;
  if (record.boot === bootId()) killMachine(record.address);
  await gone(record);
  rmSync(record.address.dir, { recursive: true, force: true });
  rmSync(recordFile(), { force: true });
  return true;
}

/** A VM for one run: the one that is up when nobody else uses it, or one of its own, which goes with the run. */
export interface Borrowed {
  machine: Machine;
  accelerator: string;
  own: boolean;
  giveBack(): Promise<void>;
}

/** @throws KitError target-unavailable when there is none and none can be started. */
export async function borrowMachine(registry: Registry, say: (line: string) => void): Promise<Borrowed> {
  const status = await labStatus();
  if (status.kind === 'stale') say(`lab: the VM that is up is stale and not used: ${status.why}`);
  if (status.kind === 'up' && takeUse()) {
    const machine = await Machine.find(status.record.address);
    const giveBack = async () => {
      machine.agent.close();
      rmSync(useFile(), { force: true });
    };
    return { machine, accelerator: status.record.accelerator, own: false, giveBack };
  }
  const { machine, accelerator } = await startMachine(registry, say);
  const killNow = () => machine.killNow();
  process.once('exit', killNow);
  const giveBack = async () => {
    process.removeListener('exit', killNow);
    await machine.stop();
    rmSync(machine.address.dir, { recursive: true, force: true });
  };
  return { machine, accelerator, own: true, giveBack };
}

async function startMachine(registry: Registry, say: (line: string) => void) {
  const startMs = performance.now();
  try {
    const image = await labImage({
      dir: imagesDirectory(),
      registry,
      say,
      fill: async (port) => {
        await makeRootImage(await connectEngine(`tcp://127.0.0.1:${port}`), join(stateDirectory(), 'images'));
      },
    });
    const dir = join(stateDirectory(), 'lab/vm', registry.runId);
    const { files, accelerator } = image;
    const machine = await Machine.start(
      { files, accelerator, start: 'resumed', dir, registry },
      RESUMED_TIMEOUT_MS,
    );
    // Its clock stood still while it was saved.
    await machine.agent.run(['date', '-s', `@${Math.round(Date.now() / 1000)}`], RESUMED_TIMEOUT_MS);
    await waitForEngine(machine.address.enginePort);
    say(`lab: a VM (${accelerator}) is up after ${((performance.now() - startMs) / 1000).toFixed(1)} s`);
    return { machine, accelerator };
  } catch (error) {
    throw new KitError('target-unavailable', `the lab VM: ${messageOf(error)}`, { cause: error });
  }
}

async function gone({ address }: UpRecord): Promise<void> {
  if (!(await until(() => !machineLives(address), KILL_TIMEOUT_MS))) {
    throw new KitError('kit-failed', `the lab VM, process ${address.pid}, cannot be killed`);
  }
}

/** Takes the VM that is up for this process alone; false when another one, which lives, has it. */
function takeUse(): boolean {
  const startTicks = processEntry(process.pid)?.startTicks;
  for (let attempt = 0; attempt < 2; attempt++) {
    try {
      writeFileSync(useFile(), JSON.stringify({ pid: process.pid, startTicks }), { flag: 'wx' });
      return true;
    } catch {
      const user = readJson(useFile()) as { pid: number; startTicks: number } | undefined;
      if (user !== undefined && processEntry(user.pid)?.startTicks === user.startTicks) return false;
      rmSync(useFile(), { force: true });
    }
  }
  return false;
}

function readRecord(): UpRecord | undefined {
  return readJson(recordFile()) as UpRecord | undefined;
}

function readJson(file: string): unknown {
  try {
    return JSON.parse(readFileSync(file, 'utf8'));
  } catch {
    return undefined;
  }
}

function recordFile(): string {
  return join(stateDirectory(), 'lab/up.json');
}

function useFile(): string {
  return join(stateDirectory(), 'lab/in-use.json');
}

import { join } from 'node:path';
import { KitError, messageOf } from '../../conformance/errors.js';
import type { Fault } from '../../faults/fault.js';
import type { Filesystem } from '../../faults/power/filesystem.js';
import { FlakeyDisk, flakeyName } from '../../faults/power/flakey.js';
import { type CommandHost, runScript } from '../../faults/power/host.js';
import { imageAvailability } from '../lab/image.js';
import { borrowMachine, imagesDirectory } from '../lab/lab.js';
import type { Machine } from '../lab/machine.js';
import { stageFolder } from '../lab/stage.js';
import { newRunId, Registry } from '../residue/registry.js';
import type { Disk } from '../run/round-disk.js';
import { ContainerDeployment } from './container-deployment.js';
import { remoteMembers } from './container-members.js';
import { connectEngine } from './engine.js';
import type { CommandResult, Deployment, DeploymentPlan, Runtime } from './runtime.js';
import { targetImages } from './target-images.js';

/** The machine's second disk; all of it is the data disk of one round. */
const DEVICE = '/dev/vdb';
const MOUNT_POINT = '/lab/disk';
const DATA_DIR = `${MOUNT_POINT}/data`;
/** The kit's loopback as the machine sees it. */
const KIT_HOST = '10.0.2.2';
const COMMAND_TIMEOUT_MS = 60_000;

/** Every process of every container gets SIGKILL from the kernel, in the order of a list: no engine is asked. */
const KILL_ALL =
  'for group in /sys/fs/cgroup/docker/*/cgroup.kill; do if [ -e "$group" ]; then echo 1 > "$group"; fi; done';

/** Without a processor's help everything takes ten times as long, and more on a machine that is busy. */
const SLOW_START_MS = 180_000;

/** What needs nothing but signals and the disk; the others work on processes and files of this machine. */
const OFFERED = new Set(['kill', 'kill-recovery', 'pause', 'full', 'power-cut']);

/** Services as containers on the engine of a virtual machine with a kernel of its own. */
export const vmRuntime: Runtime = {
  name: 'vm',
  available: async () => imageAvailability(imagesDirectory()),
  async prepare(target, say) {
    const registry = new Registry(newRunId());
    const { machine, accelerator, giveBack } = await borrowMachine(registry, say).catch((error: unknown) => {
      registry.close();
      throw error;
    });
    const close = async () => {
      await giveBack();
      registry.close();
    };
    try {
      const address = `tcp://127.0.0.1:${machine.address.enginePort}`;
      const engine = connectEngine(address);
      const images = await targetImages(engine, target, say);
      const ownFolder = images.placesOf(undefined).dir !== target.dir;
      if (!ownFolder) await stageFolder(machine.agent, target.dir);
      const ground = {
        ...{ engine, address, images, membersOf: remoteMembers },
        targetDir: ownFolder ? '' : target.dir,
      };
      return {
        name: 'vm',
        placesOf: images.placesOf,
        sinkFor: (sink) => sink.replace(/^[^:]+/, KIT_HOST),
        offers: (fault) => offers(fault),
        makes: new Set(['power-cut']),
        slowStartMs: accelerator === 'tcg' ? SLOW_START_MS : undefined,
        makeDisk: (dir, _kind, filesystem, run) => makeDisk(machine.agent, dir, filesystem, run.runId),
        deploy: (plan) => new VmDeployment(new ContainerDeployment(plan, ground), machine, plan),
        close,
      };
    } catch (error) {
      await close();
      throw error;
    }
  },
};

function offers({ name }: Fault) {
  if (OFFERED.has(name)) return { available: true } as const;
  return {
    available: false,
    why: 'under --runtime vm the processes and files of the target are on another kernel',
    remedy: 'use --runtime process or docker for this fault',
  } as const;
}

/** The machine's data disk, empty; what an earlier round has left of it is taken away. */
async function makeDisk(
  host: CommandHost,
  dir: string,
  filesystem: Filesystem,
  runId: string,
): Promise<Disk> {
  const owner = `${process.getuid?.() ?? 0}:${process.getgid?.() ?? 0}`;
  try {
    await runScript(host, CLEAR, [MOUNT_POINT], COMMAND_TIMEOUT_MS);
    const disk = await FlakeyDisk.create({
      ...{ host, device: DEVICE, name: flakeyName(runId), mountPoint: MOUNT_POINT, filesystem },
      killAll: KILL_ALL,
    });
    const folders = [DATA_DIR, join(dir, 'scratch')];
    await runScript(host, MAKE_FOLDERS, [owner, ...folders], COMMAND_TIMEOUT_MS);
    // It goes with the machine, or with the next round.
    return { dataDir: DATA_DIR, power: disk, remove: () => {}, keep: () => {} };
  } catch (error) {
    throw new KitError('kit-failed', `the disk in the lab VM cannot be made: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

/** Synced: whether the kit's own directory outlives a cut must not depend on what the target syncs. */
const MAKE_FOLDERS = 'owner=$1; shift; mkdir -p "$@"; chown "$owner" "$@"; sync -f "$1"';

const CLEAR = `
while grep -q " $1 " /proc/self/mounts; do umount "$1"; done
for name in $(dmsetup ls --target flakey | sed -n 's/^\\(plugpull-[^\\t ]*\\).*/\\1/p'); do
  dmsetup remove --retry --noudevsync "$name"
done`;

/** Containers in the machine, with their ports on this machine's loopback. */
class VmDeployment implements Deployment {
  readonly services: ContainerDeployment['services'];
  readonly #containers: ContainerDeployment;
  readonly #machine: Machine;
  readonly #ports: readonly number[];
  readonly #forwarded: Promise<void>;

  constructor(containers: ContainerDeployment, machine: Machine, plan: DeploymentPlan) {
    this.services = containers.services;
    this.#containers = containers;
    this.#machine = machine;
    this.#ports = plan.ports;
    this.#forwarded = this.#forward();
    // Who runs the first command is told.
    this.#forwarded.catch(() => {});
  }

  async runCommand(name: string, command: readonly string[], timeoutMs: number): Promise<CommandResult> {
    await this.#forwarded;
    return this.#containers.runCommand(name, command, timeoutMs);
  }

  async stop(graceMs: number): Promise<void> {
    await this.#containers.stop(graceMs);
    await this.#unforward();
  }

  async destroy(): Promise<void> {
    await this.#containers.destroy();
    await this.#unforward();
  }

  destroyNow(): void {
    this.#containers.destroyNow();
  }

  async #forward(): Promise<void> {
    for (const port of this.#ports) await this.#machine.forward(port);
  }

  async #unforward(): Promise<void> {
    await this.#forwarded.catch(() => {});
    for (const port of this.#ports) await this.#machine.unforward(port);
  }
}

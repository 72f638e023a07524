import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { KitError, messageOf } from '../../../conformance/errors.js';
import { PACKAGE_IN_IMAGE } from '../../../docker/image/images.js';
import type { Fault } from '../../../faults/fault.js';
import type { Filesystem } from '../../../faults/power/filesystem.js';
import { FlakeyDisk, flakeyDeviceName } from '../../../faults/power/flakey.js';
import { type CommandHost, runScript } from '../../../faults/power/host.js';
import { newRunId, Registry, stateDirectory } from '../../host/registry.js';
import { packageRoot } from '../../host/version.js';
import type { Disk } from '../disk.js';
import { bindMount } from '../docker/container-options.js';
import { connectEngine } from '../docker/engine.js';
import { findReferenceBuild, resolveImages } from '../docker/target-images.js';
import { faultsEnabledBy } from '../power-backends.js';
import type { Runtime } from '../runtime.js';
import { stageFolder } from './lab/copy-folder.js';
import { imageAvailability } from './lab/image.js';
import { borrowMachine } from './lab/lab.js';
import { stagePackage } from './lab/reference-package.js';
import { makeRootImage, ROOT_IMAGE, SHARED_FOLDER } from './lab/root-image.js';
import { groupOf, POWER_DIR, VmDeployment } from './vm-deployment.js';
import { VmNetworks } from './vm-network.js';

/** Second disk of the lab VM. All of it is the data disk of one round; the nodes of a cluster have a part each. */
const DATA_DEVICE = '/dev/vdb';
/** Address of the kit's loopback inside the lab VM. */
const KIT_HOST = '10.0.2.2';
const COMMAND_TIMEOUT_MS = 60_000;

/**
 * Makes the script that makes the kernel send SIGKILL to every process of every service, one group after another,
 * without the container engine.
 * @param group control group of the containers.
 */
const killAllScript = (group: string) =>
  `for group in /sys/fs/cgroup/${group}/*/*/cgroup.kill; do if [ -e "$group" ]; then echo 1 > "$group"; fi; done`;

/**
 * Timeout of starts with an emulated processor: everything takes ten times as long, and more on a busy
 * machine.
 */
const SLOW_START_MS = 180_000;
/**
 * Environment with an emulated processor: the emulator is a JIT, and discards its translation of code that
 * Node's JIT makes.
 */
const SLOW_ENV = { NODE_OPTIONS: '--jitless' };

/** Faults that need only signals, the disk and the links. The others work on processes and files of this machine. */
const SUPPORTED_FAULTS = new Set([
  'kill',
  'kill-one',
  'kill-recovery',
  'pause',
  'full',
  'io-error',
  'power-cut',
  'partition',
  'stale-link',
  'link-delay',
  'link-loss',
  'cut-then-elect',
  'node-loss',
]);
/** Faults of the links that only the kernel of the lab VM makes. */
const IMPAIRMENTS = ['link-delay', 'link-loss'];

/**
 * The runtime that runs services as containers on the container engine of a virtual machine, which has a
 * separate kernel.
 */
export const vmRuntime: Runtime = {
  name: 'vm',
  available: async () => imageAvailability(),
  async prepare(target, log) {
    const registry = new Registry(newRunId());
    const { machine, accelerator, giveBack } = await borrowMachine(registry, log).catch((error: unknown) => {
      registry.close();
      throw error;
    });
    const close = async () => {
      await giveBack();
      registry.close();
    };
    try {
      const { agent, address } = machine;
      const engine = await connectEngine(`tcp://127.0.0.1:${address.enginePort}`);
      await runScript(agent, CLEAR_ALL_SCRIPT, [], COMMAND_TIMEOUT_MS);
      const networks = new VmNetworks(machine, engine);
      const built = findReferenceBuild(target);
      const images = await resolveImages(
        engine,
        target,
        log,
        built !== undefined,
        () => makeRootImage(engine, join(stateDirectory(), 'images')),
        true,
      );
      const folder = await stagePackage(agent, built ?? join(packageRoot(), 'dist/reference-impl'));
      if (built === undefined) await stageFolder(agent, target.dir);
      const mountsOf = (image: string) => [
        ...(image === ROOT_IMAGE ? [bindMount(SHARED_FOLDER, { readOnly: true })] : []),
        ...(image === ROOT_IMAGE ? [bindMount(folder, { readOnly: true, target: PACKAGE_IN_IMAGE })] : []),
        ...(built === undefined ? [bindMount(target.dir, { readOnly: true })] : []),
      ];
      const env = accelerator === 'tcg' ? SLOW_ENV : {};
      return {
        name: 'vm',
        pathsFor: images.pathsFor,
        sinkFor: (sink) => sink.replace(/^[^:]+/, KIT_HOST),
        supports: (fault) => availabilityOf(fault),
        enabledFaults: new Set([...faultsEnabledBy('flakey'), ...IMPAIRMENTS]),
        slowStartMs: accelerator === 'tcg' ? SLOW_START_MS : undefined,
        makeDisk: (dir, _kind, filesystem, { runId }, node) =>
          makeDisk(agent, dir, filesystem, { runId, node, nodes: target.nodes ?? [] }),
        makeNetwork: (nodes, run) => networks.make(nodes, run),
        deploy: (plan) => new VmDeployment(plan, { machine, engine, images, mountsOf, env }),
        async close() {
          await networks.close();
          await close();
        },
      };
    } catch (error) {
      await close();
      throw error;
    }
  },
};

function availabilityOf({ name }: Fault) {
  if (SUPPORTED_FAULTS.has(name)) return { available: true } as const;
  return {
    available: false,
    why: 'under --runtime vm the processes and files of the target are on another kernel',
    remedy: 'use --runtime process or docker for this fault',
  } as const;
}

/** Describes a disk in the lab VM: the run and the node to which it belongs. */
interface DiskPlan {
  runId: string;
  /** Node of the disk; undefined for a target without nodes. */
  node: string | undefined;
  /** All nodes of the target. */
  nodes: readonly string[];
}

/**
 * Makes an empty filesystem on the data disk of the lab VM, or on the part of it that belongs to a node, after it has removed
 * what an earlier round has left there.
 */
async function makeDisk(
  host: CommandHost,
  dir: string,
  filesystem: Filesystem,
  { runId, node, nodes }: DiskPlan,
): Promise<Disk> {
  const owner = `${process.getuid?.() ?? 0}:${process.getgid?.() ?? 0}`;
  const mountPoint = node === undefined ? `${POWER_DIR}/disk` : `${POWER_DIR}/nodes/${node}`;
  const dataDir = `${mountPoint}/data`;
  const name = node === undefined ? flakeyDeviceName(runId) : `plugpull-node-${node}`;
  try {
    // The disk of a node has a fixed name, and takes the place of the one before.
    if (node === undefined) await runScript(host, CLEAR_SCRIPT, [mountPoint], COMMAND_TIMEOUT_MS);
    const device =
      node === undefined ? DATA_DEVICE : await makeSlice(host, nodes.indexOf(node), nodes.length);
    const disk = await FlakeyDisk.create({
      ...{ host, device, name, mountPoint, filesystem },
      killAll: killAllScript(groupOf(node)),
    });
    // The scratch folders of a node are made with its containers.
    const scratch = node === undefined ? [join(dir, 'scratch'), join(dir, 'scratch', 'target')] : [];
    await runScript(host, MAKE_FOLDERS_SCRIPT, [owner, dataDir, ...scratch], COMMAND_TIMEOUT_MS);
    // `remove` does nothing: the disk ends with the machine, or the next round clears it.
    return { dataDir, power: disk, remove: () => {}, saveTo: (to) => saveData(host, dataDir, to) };
  } catch (error) {
    throw new KitError('kit-failed', `the disk in the lab VM cannot be made: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

/** Makes the part of the data disk that belongs to a node, once. @returns its device. */
async function makeSlice(host: CommandHost, index: number, count: number): Promise<string> {
  const name = `plugpull-slice-${index}`;
  await runScript(host, SLICE_SCRIPT, [DATA_DEVICE, name, `${index}`, `${count}`], COMMAND_TIMEOUT_MS);
  return `/dev/mapper/${name}`;
}

/** Saves the data as an archive on this machine. Files that are mostly empty become small in it. */
async function saveData(host: CommandHost, dataDir: string, to: string): Promise<void> {
  const pack = 'tar -C "$1" --exclude="*.fifo" -czf - . | base64 -w 0';
  const packed = await runScript(host, pack, [dataDir], COMMAND_TIMEOUT_MS);
  mkdirSync(dirname(to), { recursive: true });
  writeFileSync(`${to}.tar.gz`, Buffer.from(packed, 'base64'));
}

/**
 * Makes folders and syncs them: otherwise it would depend on the target's own syncs whether the folders
 * survive a power cut.
 */
const MAKE_FOLDERS_SCRIPT = 'owner=$1; shift; mkdir -p "$@"; chown "$owner" "$@"; sync -f "$1"';

const CLEAR_SCRIPT = `
while grep -q " $1 " /proc/self/mounts; do umount "$1"; done
for name in $(dmsetup ls --target flakey | sed -n 's/^\\(plugpull-[^\t ]*\\).*/\\1/p'); do
  dmsetup remove --retry --noudevsync "$name"
done`;

/** Script that removes every disk that earlier runs have left. */
const CLEAR_ALL_SCRIPT = `
for mount in $(cut -d ' ' -f 2 /proc/self/mounts | grep '^${POWER_DIR}/'); do umount "$mount"; done
for type in flakey linear; do
  for name in $(dmsetup ls --target $type | sed -n 's/^\\(plugpull-[^\t ]*\\).*/\\1/p'); do
    dmsetup remove --retry --noudevsync "$name"
  done
done`;

/** Script that makes one of equal parts of a disk. Its values: the disk, the name of the part, its number, and how many there are. */
const SLICE_SCRIPT = `
if ! dmsetup info "$2" >/dev/null 2>&1; then
  each=$(($(blockdev --getsz "$1") / $4 / 2048 * 2048))
  dmsetup create "$2" --noudevsync --table "0 $each linear $1 $(($3 * each))" >/dev/null
fi
dmsetup mknodes >/dev/null`;

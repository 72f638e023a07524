import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import type Dockerode from 'dockerode';
import type { MountSettings } from 'dockerode';
import { messageOf } from '../../../conformance/errors.js';
import { runScript } from '../../../faults/power/host.js';
import { until } from '../../../faults/waiting.js';
import { appendToLog } from '../../host/bounded-log.js';
import { BOOT_ID_FILE } from '../boot/boot-view.js';
import { bindMount, containerOptions } from '../docker/container-options.js';
import { removeDeployment, toEngineError } from '../docker/engine.js';
import type { TargetImages } from '../docker/target-images.js';
import type { CommandResult, Deployment, DeploymentPlan } from '../runtime.js';
import type { Machine } from './lab/machine.js';
import { HOSTS_FILE, namespaceFile, type OuterAddresses, outerAddresses } from './vm-network.js';
import { type HolderContainer, runInContainer, VmService } from './vm-service.js';

/** Data that the deployments of one target in the lab VM share. */
export interface VmContext {
  machine: Machine;
  engine: Dockerode;
  images: TargetImages;
  /** Returns the mounts of an image, in addition to the disk and the scratch folder. */
  mountsOf(image: string): readonly MountSettings[];
  env: Readonly<Record<string, string>>;
}

/**
 * Directory of the lab VM below which disks are mounted and unmounted. The containers see these mounts too.
 */
export const POWER_DIR = '/lab/power';
/**
 * Program that keeps a container running while its service is down. It is mounted into the container from the
 * lab VM, so the container's image need not contain it.
 */
const HOLDER_PROGRAM = '/usr/bin/busybox';
/** Path of HOLDER_PROGRAM in a container. */
const HOLDER_IN_CONTAINER = '/.plugpull/busybox';
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const HOLDER_SLEEP_S = '2147483647';
const TIMEOUT_MS = 60_000;

/** Returns the control group, below the root, in which the containers of a node are; without a node, of a target without nodes. */
export function groupOf(node: string | undefined): string {
  return node === undefined ? 'docker' : `plugpull-${node}`;
}

/**
 * Gives directories to a user and syncs the first, the data: otherwise it would depend on the target's own syncs
 * whether the owner survives a power cut.
 */
const HAND_OVER_SCRIPT = 'owner=$1; shift; chown "$owner" "$@"; sync -f "$1"';

/**
 * Script that gives a container a boot of its own: a boot id, and a /tmp, /run and /dev/shm with what the image
 * has there. The container of a service outlives the crashes of the machine, so each boot is mounted on top of
 * the last one. The commands run in the container's mount namespace with the programs of the lab VM, and
 * reach the container's files through /proc, whose links they must not resolve.
 */
const ENTER_BOOT_SCRIPT = `
pid=$1; id=$2; root=/proc/$pid/root
# The start time distinguishes this container from an earlier one with the same process id.
saved=/run/plugpull-boot/$pid-$(cut -d ' ' -f 22 "/proc/$pid/stat")
mounted() { nsenter "--mount=/proc/$pid/ns/mnt" --root=/ --wd=/ -- mount --no-canonicalize "$@"; }
# The mount of /dev/shm below hides the file. It must stay: nothing can be mounted on a removed file.
echo "$id" > "$root/dev/shm/.boot-id"
chmod 444 "$root/dev/shm/.boot-id"
mounted --bind "$root/dev/shm/.boot-id" "$root${BOOT_ID_FILE}"
for dir in tmp run dev/shm; do
  if [ ! -e "$saved/$dir" ]; then
    mkdir -p "$saved/$dir" "$root/$dir"
    [ $dir = dev/shm ] || cp -a "$root/$dir/." "$saved/$dir/"
  fi
  mode=1777
  [ $dir != run ] || mode=755
  mounted -t tmpfs -o "mode=$mode" tmpfs "$root/$dir"
  cp -a --no-preserve=timestamps "$saved/$dir/." "$root/$dir/"
  chmod "$mode" "$root/$dir"
done
`;

/**
 * A target with one container per service in the lab VM. Its ports are forwarded from this machine's
 * loopback.
 */
export class VmDeployment implements Deployment {
  readonly services: readonly VmService[];
  readonly #plan: DeploymentPlan;
  readonly #context: VmContext;
  readonly #address: string;
  readonly #resource;
  #bootId = randomUUID();
  /** The reason why a container sees the boot id of the lab VM. */
  #bootProblem: string | undefined;
  readonly #holders = new Map<string, Promise<HolderContainer>>();
  readonly #forwarded: Promise<void>;
  readonly #madeFolders: Promise<void>;
  #commands = 0;

  constructor(plan: DeploymentPlan, context: VmContext) {
    this.#plan = plan;
    this.#context = context;
    this.#address = `tcp://127.0.0.1:${context.machine.address.enginePort}`;
    this.#resource = { kind: 'containers', engine: this.#address } as const;
    // The network of a cluster has registered the containers of all nodes.
    if (plan.node === undefined) plan.registry.made(this.#resource);
    this.services = plan.services.map(
      ({ name, command, env }) =>
        new VmService(name, command, {
          env: env ?? {},
          agent: context.machine.agent,
          logPath: join(plan.logDir, `${name}.log`),
          holder: () => this.#holderOf(name),
          onStarted: (incarnation) => plan.onStarted(name, incarnation, 0),
          onExited: (...exit) => plan.onExited(name, ...exit),
        }),
    );
    this.#madeFolders = plan.node === undefined ? Promise.resolve() : this.#makeFolders();
    this.#madeFolders.catch(() => {});
    this.#forwarded = this.#forward();
    // Prevent an unhandled rejection: `runCommand` awaits this promise and reports the failure.
    this.#forwarded.catch(() => {});
    for (const { name } of this.services) this.#holderOf(name).catch(() => {});
  }

  async runCommand(name: string, command: readonly string[], timeoutMs: number): Promise<CommandResult> {
    await this.#forwarded;
    const first = this.services[0]?.name ?? '';
    const holder = await this.#holderOf(first);
    const group = `command-${++this.#commands}`;
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      const kill = `echo 1 > "$1/cgroup.kill"`;
      void runScript(this.#context.machine.agent, kill, [`${holder.cgroup}/${group}`], TIMEOUT_MS).catch(
        () => {},
      );
    }, timeoutMs);
    const result = await runInContainer(this.#context.machine.agent, holder, group, command);
    clearTimeout(timer);
    const logText = `$ ${command.join(' ')}\n${result.stdout}${result.stderr}`;
    appendToLog(join(this.#plan.logDir, `${name}.log`), logText);
    return { ...result, timedOut };
  }

  async handOver(): Promise<void> {
    const { services, workingDir, scratchDir, dataDir } = this.#plan;
    const owner = this.#context.images.ownerOf(services[0]?.name);
    if (owner === undefined) return;
    const args = [`${owner.uid}:${owner.gid}`, dataDir, workingDir, scratchDir];
    await runScript(this.#context.machine.agent, HAND_OVER_SCRIPT, args, TIMEOUT_MS);
  }

  async reboot(): Promise<string | undefined> {
    const holders = await Promise.all(this.#holders.values());
    const boot = randomUUID();
    await Promise.all(holders.map(({ pid }) => this.#enterBoot(pid, boot)));
    this.#bootId = boot;
    return this.#bootProblem;
  }

  async #enterBoot(pid: number, boot: string): Promise<void> {
    try {
      await runScript(this.#context.machine.agent, ENTER_BOOT_SCRIPT, [`${pid}`, boot], TIMEOUT_MS);
    } catch (error) {
      // Let the target run nevertheless: the reason is part of the result of each machine crash.
      this.#bootProblem ??= `the boot id cannot be mounted in the lab VM: ${messageOf(error)}`;
    }
  }

  async stop(graceMs: number): Promise<void> {
    await Promise.all(this.services.map((service) => service.signal('SIGTERM')));
    await until(() => this.services.every((service) => service.pids().length === 0), graceMs);
    await this.destroy();
  }

  async destroy(): Promise<void> {
    try {
      await Promise.allSettled(this.#holders.values());
      await removeDeployment(this.#context.engine, this.#plan.runId);
    } catch (error) {
      throw toEngineError(error, this.#address);
    }
    if (this.#plan.node === undefined) this.#plan.registry.gone(this.#resource);
    await this.#unforward();
  }

  /**
   * Does nothing: either the lab VM is killed as a whole, or it stays up for other runs and `clean` removes
   * the containers.
   */
  destroyNow(): void {}

  /** Returns the container of a service, and starts it at the first call. */
  #holderOf(name: string): Promise<HolderContainer> {
    const existing = this.#holders.get(name);
    if (existing !== undefined) return existing;
    const starting = this.#startHolder(name).catch((error: unknown) => {
      throw toEngineError(error, this.#address);
    });
    this.#holders.set(name, starting);
    return starting;
  }

  async #startHolder(service: string): Promise<HolderContainer> {
    const { engine, images, mountsOf, env } = this.#context;
    const { runId, workingDir, node } = this.#plan;
    await this.#madeFolders;
    const image = images.imageOf(service);
    const options = containerOptions(
      {
        // Names of containers have no @.
        name: `plugpull-${runId}-${service.replace('@', '.')}-${process.pid}`,
        service,
        image,
        command: [HOLDER_IN_CONTAINER, 'sleep', HOLDER_SLEEP_S],
        env,
      },
      this.#plan,
      {
        mounts: [
          bindMount(POWER_DIR, { readOnly: false, propagation: 'rslave' }),
          bindMount(workingDir, { readOnly: false }),
          bindMount(HOLDER_PROGRAM, { readOnly: true, target: HOLDER_IN_CONTAINER }),
          ...(node === undefined ? [] : [bindMount(HOSTS_FILE, { readOnly: true, target: '/etc/hosts' })]),
          ...mountsOf(image),
        ],
        // Use the machine's network. One run has the machine at a time, and only forwarded ports are
        // reachable from outside. Where processors are emulated, a bridge and a pod would cost the engine
        // many seconds per round and show nothing more. The processes of a node enter its network instead.
        network: 'host',
      },
    );
    const group = groupOf(node?.name);
    const container = await engine.createContainer({
      ...options,
      ...(node && { Hostname: node.name }),
      HostConfig: { ...options.HostConfig, CgroupParent: `/${group}` },
    });
    await container.start();
    const { State, Config } = await container.inspect();
    await this.#enterBoot(State.Pid, this.#bootId);
    const uid = process.getuid?.() ?? 0;
    const owner = images.ownerOf(service);
    return {
      pid: State.Pid,
      cgroup: `/sys/fs/cgroup/${group}/${container.id}`,
      network: node && namespaceFile(node.name),
      // The engine gives a container without PATH a default one and does not report it.
      env: {
        PATH,
        ...Object.fromEntries(
          Config.Env.map((line) => [line.replace(/=.*/s, ''), line.replace(/^[^=]*=/, '')]),
        ),
      },
      user: owner ?? (uid === 0 ? undefined : { uid, gid: process.getgid?.() ?? uid }),
    };
  }

  async #forward(): Promise<void> {
    for (const port of this.#plan.ports) await this.#context.machine.forward(port, this.#outer());
  }

  /** Returns the addresses of the forwarded ports of a node; undefined without nodes. */
  #outer(): OuterAddresses | undefined {
    const { node } = this.#plan;
    return node && outerAddresses([...node.network.addresses.keys()].indexOf(node.name));
  }

  /** Makes the scratch folders of a node. Those of a target without nodes are made with its disk. */
  async #makeFolders(): Promise<void> {
    const { workingDir, scratchDir } = this.#plan;
    const owner = `${process.getuid?.() ?? 0}:${process.getgid?.() ?? 0}`;
    const script = 'owner=$1; shift; mkdir -p "$@"; chown "$owner" "$@"';
    await runScript(this.#context.machine.agent, script, [owner, workingDir, scratchDir], TIMEOUT_MS);
  }

  async #unforward(): Promise<void> {
    await this.#forwarded.catch(() => {});
    for (const port of this.#plan.ports) await this.#context.machine.unforward(port, this.#outer());
  }
}

import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import type Dockerode from 'dockerode';
import type { MountSettings } from 'dockerode';
import type { Availability, Fault } from '../../../faults/fault.js';
import { until } from '../../../faults/waiting.js';
import { appendToLog } from '../../host/bounded-log.js';
import { collectOutput } from '../../host/output.js';
import { giveTo } from '../disks/owner.js';
import type { CommandResult, Deployment, DeploymentPlan, Runtime } from '../runtime.js';
import { ContainerBoot } from './container-boot.js';
import { ContainerNetwork, type NetworkContext } from './container-network.js';
import { bindMount, containerOptions } from './container-options.js';
import { type ContainerProcesses, localContainerProcesses } from './container-processes.js';
import { ContainerService, decodeExitStatus } from './container-service.js';
import {
  connectEngine,
  engineAddress,
  engineAvailability,
  removeDeployment,
  toEngineError,
  tolerateGone,
} from './engine.js';
import { TOOLS_IN_IMAGE } from './image-tools.js';
import { createPodNetwork } from './pod-network.js';
import { ensureBusybox, ensurePodImage, ensureTargetImages, type TargetImages } from './target-images.js';

/** Data that the container deployments of one target share. */
export interface ContainerContext extends NetworkContext {
  images: TargetImages;
  /** Path of a static busybox on this machine; undefined when there is none. */
  busybox: string | undefined;
  /** Folder of the target file. */
  targetDir: string;
  /** Finds the processes of a container; returns undefined when the kit cannot see them. */
  findProcesses(pid: number, containerId: string): ContainerProcesses | undefined;
}

/** A target with one container per service. All containers carry the run's id and are found by it. */
export class ContainerDeployment implements Deployment {
  readonly services: readonly ContainerService[];
  readonly #plan: DeploymentPlan;
  readonly #context: ContainerContext;
  readonly #resource;
  readonly #boot: ContainerBoot;
  #network: Promise<ContainerNetwork> | undefined;
  /** The container network once it exists, for code that cannot wait for the promise in `#network`. */
  #readyNetwork: ContainerNetwork | undefined;
  #containerCount = 0;
  #hasHosts = false;

  constructor(plan: DeploymentPlan, context: ContainerContext) {
    this.#plan = plan;
    this.#context = context;
    this.#boot = new ContainerBoot(plan.workingDir, context.busybox);
    this.#resource = { kind: 'containers', engine: context.address } as const;
    // The network of a cluster has registered the containers of all nodes.
    if (plan.node === undefined) plan.registry.made(this.#resource);
    this.services = plan.services.map(
      ({ name, command, env: serviceEnv, user }) =>
        new ContainerService(name, command, {
          engine: context.engine,
          address: context.address,
          logPath: join(plan.logDir, `${name}.log`),
          create: (args, env) => this.#create(name, args, { env: { ...serviceEnv, ...env }, user }),
          enterBoot: ({ id }, pid) => this.#boot.enter(id, pid),
          findProcesses: context.findProcesses,
          onStarted: (incarnation, pid) => plan.onStarted(name, incarnation, pid),
          onExited: (...exit) => plan.onExited(name, ...exit),
        }),
    );
  }

  async runCommand(name: string, command: readonly string[], timeoutMs: number): Promise<CommandResult> {
    try {
      return await this.#runCommand(name, command, timeoutMs);
    } catch (error) {
      throw toEngineError(error, this.#context.address);
    }
  }

  async handOver(): Promise<void> {
    const { services, workingDir, scratchDir, dataDir } = this.#plan;
    const owner = this.#context.images.ownerOf(services[0]?.name);
    if (owner !== undefined) for (const path of [workingDir, scratchDir, dataDir]) giveTo(path, owner);
  }

  /** Other containers take the place of the present ones: their /tmp, /run and /dev/shm are those of the image. */
  async reboot(): Promise<string | undefined> {
    try {
      await Promise.all(this.services.map((service) => service.forgetContainers()));
    } catch (error) {
      throw toEngineError(error, this.#context.address);
    }
    this.#boot.reboot();
    return this.#boot.problem;
  }

  async stop(graceMs: number): Promise<void> {
    await Promise.all(this.services.map((service) => service.signal('SIGTERM')));
    await until(() => this.services.every((service) => service.pids().length === 0), graceMs);
    await this.destroy();
  }

  async destroy(): Promise<void> {
    const { node } = this.#plan;
    try {
      // Kill the services first, so that each of them records its exit. Then remove everything else of the
      // run.
      await Promise.all(this.services.map((service) => service.signal('SIGKILL')));
      await Promise.all(this.services.map((service) => service.waitForExit(EXIT_TIMEOUT_MS)));
      await this.#network?.catch(() => {});
      await removeDeployment(this.#context.engine, this.#plan.runId);
    } catch (error) {
      throw toEngineError(error, this.#context.address);
    } finally {
      this.#readyNetwork?.close();
      this.#boot.remove();
    }
    if (node === undefined) this.#plan.registry.gone(this.#resource);
  }

  destroyNow(): void {
    for (const service of this.services) service.killNow();
    this.#readyNetwork?.killNow();
  }

  async #create(
    service: string,
    requested: readonly string[],
    { env = {}, user }: { env?: Readonly<Record<string, string>>; user?: string | undefined } = {},
    image = this.#context.images.imageOf(service),
  ): Promise<Dockerode.Container> {
    // Names of containers have no @.
    const name = `plugpull-${this.#plan.runId}-${service.replace('@', '.')}-${++this.#containerCount}`;
    const { dataDir, workingDir } = this.#plan;
    const { engine, targetDir } = this.#context;
    const latch = await this.#boot.makeLatch(requested);
    const { command } = latch;
    const mounts = [
      ...[dataDir, workingDir].map((path) => bindMount(path, { readOnly: false })),
      ...(existsSync(targetDir) ? [bindMount(targetDir, { readOnly: true })] : []),
      ...latch.mounts,
      ...this.#hostsMounts(),
    ];
    const container = { name, service, image, command, env, user };
    const network = await this.#joinNetwork();
    const created = await engine.createContainer(
      containerOptions(container, this.#plan, { mounts, network }),
    );
    this.#boot.assign(created.id, latch.path);
    return created;
  }

  /** Returns the `NetworkMode` of a container, and makes the network first where it belongs to this deployment. */
  async #joinNetwork(): Promise<string> {
    const { node } = this.#plan;
    const pod = node?.network.podOf?.(node.name);
    if (pod !== undefined) return `container:${pod}`;
    this.#network ??= ContainerNetwork.make(this.#plan, this.#context);
    this.#readyNetwork = await this.#network;
    return this.#readyNetwork.networkMode;
  }

  /** Lets the nodes of a cluster know each other by name: the engine does not know their addresses. */
  #hostsMounts(): MountSettings[] {
    const { node, workingDir } = this.#plan;
    if (node === undefined) return [];
    const file = join(workingDir, '.hosts');
    if (!this.#hasHosts) {
      const lines = [...node.network.addresses].map(([name, address]) => `${address} ${name}\n`);
      writeFileSync(file, `127.0.0.1 localhost\n${lines.join('')}`);
      this.#hasHosts = true;
    }
    return [bindMount(file, { readOnly: true, target: '/etc/hosts' })];
  }

  async #runCommand(name: string, command: readonly string[], timeoutMs: number): Promise<CommandResult> {
    const user = this.#plan.services[0]?.user;
    const container = await this.#create(name, command, { user }, this.#context.images.imageOf(undefined));
    try {
      const output = await container.attach({ stream: true, stdout: true, stderr: true });
      const stdout = new PassThrough();
      const stderr = new PassThrough();
      const outputs = [collectOutput(stdout), collectOutput(stderr)] as const;
      this.#context.engine.modem.demuxStream(output, stdout, stderr);
      const ended = new Promise<void>((resolve) => {
        output.once('close', resolve);
        output.once('end', resolve);
      });
      await container.start();
      const { State } = await container.inspect();
      await this.#boot.enter(container.id, State.Pid);
      let timedOut = false;
      const timer = setTimeout(() => {
        timedOut = true;
        void tolerateGone(container.kill({ signal: 'SIGKILL' })).catch(() => {});
      }, timeoutMs);
      const { StatusCode } = (await container.wait()) as { StatusCode: number };
      clearTimeout(timer);
      await ended;
      const [code, signal] = decodeExitStatus(StatusCode);
      const result = { code, signal, timedOut, stdout: outputs[0](), stderr: outputs[1]() };
      appendToLog(
        join(this.#plan.logDir, `${name}.log`),
        `$ ${command.join(' ')}\n${result.stdout}${result.stderr}`,
      );
      return result;
    } finally {
      await tolerateGone(container.remove({ force: true }));
    }
  }
}

const EXIT_TIMEOUT_MS = 15_000;

/** The runtime that runs services as containers on the container engine of this machine. */
export const dockerRuntime: Runtime = {
  name: 'docker',
  available: () => engineAvailability(engineAddress()),
  async prepare(target, log) {
    const address = engineAddress();
    const engine = await connectEngine(address);
    const images = await ensureTargetImages(engine, target, log);
    const podImage = await ensurePodImage(engine, log);
    const busybox = await ensureBusybox(engine, podImage);
    return {
      name: 'docker',
      pathsFor: images.pathsFor,
      imageOf: images.imageOf,
      images: [...new Set(Object.keys(target.services).map((service) => images.imageOf(service)))],
      supports: (fault) => availabilityOf(fault, images),
      makeNetwork: (nodes, registry) => createPodNetwork(nodes, registry, { engine, address, podImage }),
      deploy: (plan) =>
        new ContainerDeployment(plan, {
          engine,
          address,
          images,
          podImage,
          busybox,
          targetDir: target.dir,
          findProcesses: localContainerProcesses,
        }),
    };
  },
};

function availabilityOf({ name }: Fault, { toolsMissingIn }: TargetImages): Availability {
  const tool = TOOLS_IN_IMAGE[name];
  const images = tool === undefined ? [] : toolsMissingIn(tool);
  if (tool === undefined || images.length === 0) return { available: true };
  return {
    available: false,
    why: `under --runtime docker it needs ${tool} in the image, and ${images.join(', ')} has none`,
    remedy: `install ${tool} in the image, or use --runtime process for this fault`,
  };
}

import { appendFileSync, existsSync } from 'node:fs';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import type Dockerode from 'dockerode';
import type { Availability, Fault } from '../../../faults/fault.js';
import { until } from '../../../faults/waiting.js';
import { collectOutput } from '../../host/output.js';
import type { CommandResult, Deployment, DeploymentPlan, Runtime } from '../runtime.js';
import { ContainerNetwork, type NetworkContext } from './container-network.js';
import { bindMount, containerOptions } from './container-options.js';
import { type ContainerProcesses, localContainerProcesses } from './container-processes.js';
import { ContainerService, decodeExitStatus } from './container-service.js';
import {
  connectEngine,
  engineAddress,
  engineAvailability,
  removeRunResources,
  toEngineError,
  tolerateGone,
} from './engine.js';
import { ensurePodImage, ensureTargetImages, type TargetImages } from './target-images.js';

/** Data that the container deployments of one target share. */
export interface ContainerContext extends NetworkContext {
  images: TargetImages;
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
  #network: Promise<ContainerNetwork> | undefined;
  /** The container network once it exists, for code that cannot wait for the promise in `#network`. */
  #readyNetwork: ContainerNetwork | undefined;
  #containerCount = 0;

  constructor(plan: DeploymentPlan, context: ContainerContext) {
    this.#plan = plan;
    this.#context = context;
    this.#resource = { kind: 'containers', engine: context.address } as const;
    plan.registry.made(this.#resource);
    this.services = plan.services.map(
      ({ name, command }) =>
        new ContainerService(name, command, {
          engine: context.engine,
          address: context.address,
          logPath: join(plan.logDir, `${name}.log`),
          create: (args, env) => this.#create(name, args, env),
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

  async stop(graceMs: number): Promise<void> {
    await Promise.all(this.services.map((service) => service.signal('SIGTERM')));
    await until(() => this.services.every((service) => service.pids().length === 0), graceMs);
    await this.destroy();
  }

  async destroy(): Promise<void> {
    try {
      // Kill the services first, so that each of them records its exit. Then remove everything else of the
      // run.
      await Promise.all(this.services.map((service) => service.signal('SIGKILL')));
      await Promise.all(this.services.map((service) => service.waitForExit(EXIT_TIMEOUT_MS)));
      await this.#network?.catch(() => {});
      await removeRunResources(this.#context.engine, this.#plan.runId);
    } catch (error) {
      throw toEngineError(error, this.#context.address);
    } finally {
      this.#readyNetwork?.close();
    }
    this.#plan.registry.gone(this.#resource);
  }

  destroyNow(): void {
    for (const service of this.services) service.killNow();
    this.#readyNetwork?.killNow();
  }

  async #create(
    service: string,
    command: readonly string[],
    env: Readonly<Record<string, string>> = {},
    image = this.#context.images.imageOf(service),
  ): Promise<Dockerode.Container> {
    const name = `plugpull-${this.#plan.runId}-${service}-${++this.#containerCount}`;
    const { dataDir, workingDir } = this.#plan;
    const { engine, targetDir } = this.#context;
    const mounts = [
      ...[dataDir, workingDir].map((path) => bindMount(path, { readOnly: false })),
      ...(existsSync(targetDir) ? [bindMount(targetDir, { readOnly: true })] : []),
    ];
    const container = { name, service, image, command, env };
    this.#network ??= ContainerNetwork.make(this.#plan, this.#context);
    this.#readyNetwork = await this.#network;
    const network = this.#readyNetwork.networkMode;
    return engine.createContainer(containerOptions(container, this.#plan, { mounts, network }));
  }

  async #runCommand(name: string, command: readonly string[], timeoutMs: number): Promise<CommandResult> {
    const container = await this.#create(name, command, {}, this.#context.images.imageOf(undefined));
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
      appendFileSync(
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

/** Debian package that a fault needs in the image of a service, by the name of the fault. */
const TOOLS_IN_IMAGE: Readonly<Record<string, string>> = {
  'kill-syscall': 'strace',
  'io-error': 'strace',
  tear: 'strace',
  clock: 'libfaketime',
};

/** The runtime that runs services as containers on the container engine of this machine. */
export const dockerRuntime: Runtime = {
  name: 'docker',
  available: () => engineAvailability(engineAddress()),
  async prepare(target, log) {
    const address = engineAddress();
    const engine = await connectEngine(address);
    const images = await ensureTargetImages(engine, target, log);
    const podImage = await ensurePodImage(engine, log);
    return {
      name: 'docker',
      pathsFor: images.pathsFor,
      images: [...new Set(Object.keys(target.services).map((service) => images.imageOf(service)))],
      supports: (fault) => availabilityOf(fault, images),
      deploy: (plan) =>
        new ContainerDeployment(plan, {
          engine,
          address,
          images,
          podImage,
          targetDir: target.dir,
          findProcesses: localContainerProcesses,
        }),
    };
  },
};

function availabilityOf({ name }: Fault, { pulled: foreign }: TargetImages): Availability {
  const tool = TOOLS_IN_IMAGE[name];
  if (tool === undefined || foreign.length === 0) return { available: true };
  return {
    available: false,
    why: `under --runtime docker it needs ${tool} in the image, and ${foreign.join(', ')} may not have it`,
    remedy: 'use --runtime process for this fault',
  };
}

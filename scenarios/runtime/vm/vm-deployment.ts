import { appendFileSync } from 'node:fs';
import { join } from 'node:path';
import type Dockerode from 'dockerode';
import type { MountSettings } from 'dockerode';
import { runScript } from '../../../faults/power/host.js';
import { until } from '../../../faults/waiting.js';
import { bindMount, containerOptions } from '../docker/container-options.js';
import { removeRunResources, toEngineError } from '../docker/engine.js';
import type { TargetImages } from '../docker/target-images.js';
import type { CommandResult, Deployment, DeploymentPlan } from '../runtime.js';
import type { Machine } from './lab/machine.js';
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
  readonly #holders = new Map<string, Promise<HolderContainer>>();
  readonly #forwarded: Promise<void>;
  #commands = 0;

  constructor(plan: DeploymentPlan, context: VmContext) {
    this.#plan = plan;
    this.#context = context;
    this.#address = `tcp://127.0.0.1:${context.machine.address.enginePort}`;
    this.#resource = { kind: 'containers', engine: this.#address } as const;
    plan.registry.made(this.#resource);
    this.services = plan.services.map(
      ({ name, command }) =>
        new VmService(name, command, {
          agent: context.machine.agent,
          logPath: join(plan.logDir, `${name}.log`),
          holder: () => this.#holderOf(name),
          onStarted: (incarnation) => plan.onStarted(name, incarnation, 0),
          onExited: (...exit) => plan.onExited(name, ...exit),
        }),
    );
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
    appendFileSync(join(this.#plan.logDir, `${name}.log`), logText);
    return { ...result, timedOut };
  }

  async stop(graceMs: number): Promise<void> {
    await Promise.all(this.services.map((service) => service.signal('SIGTERM')));
    await until(() => this.services.every((service) => service.pids().length === 0), graceMs);
    await this.destroy();
  }

  async destroy(): Promise<void> {
    try {
      await Promise.allSettled(this.#holders.values());
      await removeRunResources(this.#context.engine, this.#plan.runId);
    } catch (error) {
      throw toEngineError(error, this.#address);
    }
    this.#plan.registry.gone(this.#resource);
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
    const { runId, workingDir } = this.#plan;
    const image = images.imageOf(service);
    const options = containerOptions(
      {
        name: `plugpull-${runId}-${service}-${process.pid}`,
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
          ...mountsOf(image),
        ],
        // Use the machine's network. One run has the machine at a time, and only forwarded ports are
        // reachable from outside. Where processors are emulated, a bridge and a pod would cost the engine
        // many seconds per round and show nothing more.
        network: 'host',
      },
    );
    const container = await engine.createContainer(options);
    await container.start();
    const { State, Config } = await container.inspect();
    const uid = process.getuid?.() ?? 0;
    return {
      pid: State.Pid,
      cgroup: `/sys/fs/cgroup/docker/${container.id}`,
      // The engine gives a container without PATH a default one and does not report it.
      env: {
        PATH,
        ...Object.fromEntries(
          Config.Env.map((line) => [line.replace(/=.*/s, ''), line.replace(/^[^=]*=/, '')]),
        ),
      },
      user: uid === 0 ? undefined : { uid, gid: process.getgid?.() ?? uid },
    };
  }

  async #forward(): Promise<void> {
    for (const port of this.#plan.ports) await this.#context.machine.forward(port);
  }

  async #unforward(): Promise<void> {
    await this.#forwarded.catch(() => {});
    for (const port of this.#plan.ports) await this.#context.machine.unforward(port);
  }
}

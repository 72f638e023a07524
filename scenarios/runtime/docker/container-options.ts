import type { ContainerCreateOptions, MountSettings, NetworkCreateOptions } from 'dockerode';
import { type DeploymentPlan, RUN_VARIABLE, SERVICE_VARIABLE } from '../runtime.js';
import { RUN_LABEL } from './engine.js';

/** More than a target of a test needs, and less than would hurt the machine that the kit runs on. */
const MEMORY_BYTES = 2 * 1024 ** 3;
const MAX_PROCESSES = 512;
const POD_MEMORY_BYTES = 256 * 1024 ** 2;
const POD_MAX_PROCESSES = 64;

export interface ContainerPlan {
  name: string;
  service: string;
  image: string;
  command: readonly string[];
  env: Readonly<Record<string, string>>;
}

/** Beside its command, what a container gets of the world. */
export interface ContainerAttachments {
  mounts: readonly MountSettings[];
  network: string;
}

/** A path that is the same inside, where nothing else is said. */
export function bindMount(
  path: string,
  { readOnly, target = path, propagation = 'rprivate' }: BindOptions,
): MountSettings {
  const BindOptions = { Propagation: propagation };
  return { Type: 'bind', Source: path, Target: target, ReadOnly: readOnly, BindOptions };
}

interface BindOptions {
  readOnly: boolean;
  target?: string;
  propagation?: 'rprivate' | 'rslave';
}

/** What the engine is asked to make. Only `{data}` and scratch can be written to. */
export function containerOptions(
  { name, service, image, command, env }: ContainerPlan,
  plan: DeploymentPlan,
  { mounts, network }: ContainerAttachments,
): ContainerCreateOptions {
  const variables = { ...env, [RUN_VARIABLE]: plan.runId, [SERVICE_VARIABLE]: service };
  const user = process.getuid?.() ?? 0;
  return {
    name,
    Image: image,
    Entrypoint: [],
    Cmd: [...command],
    Env: Object.entries(variables).map(([key, value]) => `${key}=${value}`),
    WorkingDir: plan.workingDir,
    Labels: { [RUN_LABEL]: plan.runId },
    // What a container writes belongs to the user who has to remove it.
    ...(user === 0 ? {} : { User: `${user}:${process.getgid?.() ?? user}` }),
    HostConfig: {
      NetworkMode: network,
      Mounts: [...mounts],
      Memory: MEMORY_BYTES,
      MemorySwap: MEMORY_BYTES,
      PidsLimit: MAX_PROCESSES,
      SecurityOpt: ['no-new-privileges'],
      RestartPolicy: { Name: 'no' },
      // The kit reads the output as it comes, and keeps it beside the run's other evidence.
      LogConfig: { Type: 'none', Config: {} },
    },
  };
}

/** A bridge network of its own. */
export function networkOptions(name: string, { runId }: DeploymentPlan): NetworkCreateOptions {
  return { Name: name, Driver: 'bridge', Labels: { [RUN_LABEL]: runId } };
}

export interface PodPlan {
  name: string;
  image: string;
  command: readonly string[];
  network: string;
}

/**
 * The container that keeps the network namespace of a deployment, with the ports of all services on loopback of this
 * machine. It sees nothing of the target's data, and may change the rules of its own network.
 */
export function podOptions(
  { name, image, command, network }: PodPlan,
  { runId, ports }: DeploymentPlan,
): ContainerCreateOptions {
  const names = ports.map((port) => `${port}/tcp`);
  return {
    name,
    Image: image,
    Entrypoint: [],
    Cmd: [...command],
    Env: [`${RUN_VARIABLE}=${runId}`],
    User: '0:0',
    Labels: { [RUN_LABEL]: runId },
    ExposedPorts: Object.fromEntries(names.map((port) => [port, {}])),
    HostConfig: {
      NetworkMode: network,
      PortBindings: Object.fromEntries(
        ports.map((port) => [`${port}/tcp`, [{ HostIp: '127.0.0.1', HostPort: `${port}` }]]),
      ),
      // Else the kernel takes addresses of loopback that come from elsewhere, or go there, for forged.
      Sysctls: { 'net.ipv4.conf.all.route_localnet': '1' },
      CapDrop: ['ALL'],
      CapAdd: ['NET_ADMIN', 'NET_RAW'],
      Memory: POD_MEMORY_BYTES,
      MemorySwap: POD_MEMORY_BYTES,
      PidsLimit: POD_MAX_PROCESSES,
      SecurityOpt: ['no-new-privileges'],
      RestartPolicy: { Name: 'no' },
      LogConfig: { Type: 'none', Config: {} },
    },
  };
}

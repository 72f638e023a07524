import type { ContainerCreateOptions, MountSettings, NetworkCreateOptions } from 'dockerode';
import { type DeploymentPlan, RUN_VARIABLE, SERVICE_VARIABLE } from '../runtime.js';
import { deploymentLabels } from './engine.js';

/**
 * Memory of a service's container: more than a target under test needs, and too little to harm the kit's
 * machine.
 */
const MEMORY_BYTES = 2 * 1024 ** 3;
const MAX_PROCESSES = 512;
const POD_MEMORY_BYTES = 256 * 1024 ** 2;
const POD_MAX_PROCESSES = 64;
/** Program of the pod of a node, in the image of pods: it only keeps the container running. */
const NODE_POD_COMMAND = ['/bin/busybox', 'sleep', '2147483647'];

/** Description of one container of a target. */
export interface ContainerPlan {
  name: string;
  service: string;
  image: string;
  command: readonly string[];
  env: Readonly<Record<string, string>>;
  /** Name or number of a user of the image. Default: the kit's user, or that of the image if the kit is root. */
  user?: string | undefined;
}

/** Mounts and network of a container. */
export interface ContainerAttachments {
  mounts: readonly MountSettings[];
  network: string;
}

/** Makes the options of a bind mount. The path inside is the same as outside, unless `target` is given. */
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

/**
 * Makes the container engine's options for a container of the target. Of this machine's files, only `{data}`
 * and scratch are writable.
 */
export function containerOptions(
  { name, service, image, command, env, user: wanted }: ContainerPlan,
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
    Labels: deploymentLabels(plan.registry.runId, plan.runId),
    // Files that a container writes must belong to the kit's user, because the kit has to remove them.
    ...(wanted !== undefined
      ? { User: wanted }
      : user === 0
        ? {}
        : { User: `${user}:${process.getgid?.() ?? user}` }),
    HostConfig: {
      NetworkMode: network,
      Mounts: [...mounts],
      Memory: MEMORY_BYTES,
      MemorySwap: MEMORY_BYTES,
      PidsLimit: MAX_PROCESSES,
      SecurityOpt: ['no-new-privileges'],
      RestartPolicy: { Name: 'no' },
      // The engine needs no log: the kit reads the output as it comes and saves it with the run's other
      // evidence.
      LogConfig: { Type: 'none', Config: {} },
    },
  };
}

/** Makes the container engine's options for a bridge network of one deployment. */
export function networkOptions(name: string, { runId, registry }: DeploymentPlan): NetworkCreateOptions {
  return { Name: name, Driver: 'bridge', Labels: deploymentLabels(registry.runId, runId) };
}

/** Description of the pod, the container that keeps the network of one deployment. */
export interface PodPlan {
  name: string;
  image: string;
  command: readonly string[];
  network: string;
}

/**
 * Makes the container engine's options for the pod, the container that keeps the network namespace of a
 * deployment. It publishes the ports of all services on this machine's loopback. It does not see the target's
 * data, and it may change the rules of its own network.
 */
export function podOptions(
  { name, image, command, network }: PodPlan,
  { runId, ports, registry }: DeploymentPlan,
): ContainerCreateOptions {
  const names = ports.map((port) => `${port}/tcp`);
  return {
    name,
    Image: image,
    Entrypoint: [],
    Cmd: [...command],
    Env: [`${RUN_VARIABLE}=${runId}`],
    User: '0:0',
    Labels: deploymentLabels(registry.runId, runId),
    ExposedPorts: Object.fromEntries(names.map((port) => [port, {}])),
    HostConfig: {
      NetworkMode: network,
      PortBindings: Object.fromEntries(
        ports.map((port) => [`${port}/tcp`, [{ HostIp: '127.0.0.1', HostPort: `${port}` }]]),
      ),
      // Without this, the kernel drops packets with loopback addresses on other interfaces as forged.
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

/** Description of the pod of a node, the container that keeps the network namespace of the node. */
export interface NodePodPlan {
  name: string;
  image: string;
  /** Name of the node. The containers of its services have it as their host name. */
  node: string;
  runId: string;
  /** Mark of the pod; see `deploymentLabels`. */
  mark: string;
}

/** Makes the container engine's options for the pod of a node. It has no network of the engine: the kit makes the links. */
export function nodePodOptions({ name, image, node, runId, mark }: NodePodPlan): ContainerCreateOptions {
  return {
    name,
    Image: image,
    Hostname: node,
    Entrypoint: [],
    Cmd: NODE_POD_COMMAND,
    Env: [`${RUN_VARIABLE}=${runId}`],
    User: '0:0',
    Labels: deploymentLabels(runId, mark),
    HostConfig: {
      NetworkMode: 'none',
      CapDrop: ['ALL'],
      Memory: POD_MEMORY_BYTES,
      MemorySwap: POD_MEMORY_BYTES,
      PidsLimit: POD_MAX_PROCESSES,
      SecurityOpt: ['no-new-privileges'],
      RestartPolicy: { Name: 'no' },
      LogConfig: { Type: 'none', Config: {} },
    },
  };
}

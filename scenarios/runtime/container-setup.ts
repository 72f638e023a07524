import type { ContainerCreateOptions, MountSettings } from 'dockerode';
import { RUN_LABEL } from './engine.js';
import { type DeploymentPlan, RUN_VARIABLE, SERVICE_VARIABLE } from './runtime.js';

/** More than a target of a test needs, and less than would hurt the machine that the kit runs on. */
const MEMORY_BYTES = 2 * 1024 ** 3;
const MOST_PROCESSES = 512;

export interface ContainerPlan {
  name: string;
  service: string;
  image: string;
  command: readonly string[];
  env: Readonly<Record<string, string>>;
}

/** Beside its command, what a container gets of the world. */
export interface ContainerPlace {
  mounts: readonly MountSettings[];
  network: string;
}

/** A path that is the same inside, where nothing else is said. */
export function bind(
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
  { mounts, network }: ContainerPlace,
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
      PidsLimit: MOST_PROCESSES,
      SecurityOpt: ['no-new-privileges'],
      RestartPolicy: { Name: 'no' },
      // The kit reads the output as it comes, and keeps it beside the run's other evidence.
      LogConfig: { Type: 'none', Config: {} },
    },
  };
}

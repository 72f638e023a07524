import { existsSync } from 'node:fs';
import type { ContainerCreateOptions } from 'dockerode';
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

/**
 * What the engine is asked to make.
 *
 * The network is the machine's own: a target listens on and calls loopback addresses, the same ones as without
 * containers, and what listens on loopback is reached from nowhere else. The data, the scratch folder and the folder
 * of the target file have the same paths inside as outside. Only `{data}` and scratch can be written to.
 */
export function containerOptions(
  { name, service, image, command, env }: ContainerPlan,
  plan: DeploymentPlan,
  targetDir: string,
): ContainerCreateOptions {
  const bind = (path: string, readOnly: boolean) => ({
    Type: 'bind' as const,
    Source: path,
    Target: path,
    ReadOnly: readOnly,
    BindOptions: { Propagation: 'rprivate' as const },
  });
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
      NetworkMode: 'host',
      Mounts: [
        bind(plan.dataDir, false),
        bind(plan.workingDir, false),
        ...(existsSync(targetDir) ? [bind(targetDir, true)] : []),
      ],
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

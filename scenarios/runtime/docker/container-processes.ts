import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { processEntry } from '../../host/processes.js';

const CGROUP_ROOT = '/sys/fs/cgroup';

/** The processes of one incarnation of a container. */
export interface ContainerProcesses {
  /** Those that live, in the kit's numbers. */
  pids(): number[];
  /** Whether they are processes of this kernel, which can be signalled without the engine. */
  readonly isLocal: boolean;
}

/** Of a container that has ended before it could be looked at. */
export const NO_PROCESSES: ContainerProcesses = { pids: () => [], isLocal: true };

/**
 * The members of a container as the kernel's list of its control group has them, whatever they have forked to.
 * @param pid of its first process; undefined when it does not run on this kernel, or the kit cannot see it.
 */
export function localContainerProcesses(pid: number, containerId: string): ContainerProcesses | undefined {
  const file = cgroupProcsFile(pid, containerId);
  if (file === undefined) return undefined;
  return { pids: () => livePidsIn(file), isLocal: true };
}

function livePidsIn(file: string): number[] {
  let text: string;
  try {
    text = readFileSync(file, 'latin1');
  } catch {
    return [];
  }
  return text
    .split('\n')
    .map(Number)
    .filter((pid) => pid > 0 && !['Z', 'X', undefined].includes(processEntry(pid)?.state));
}

/** Of version 2 there is one hierarchy, of version 1 one for each controller, any of which does. */
function cgroupProcsFile(pid: number, containerId: string): string | undefined {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/cgroup`, 'latin1');
  } catch {
    return undefined;
  }
  for (const line of text.split('\n')) {
    const [, controllers = '', path = ''] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    if (!path.includes(containerId)) continue;
    const file = join(CGROUP_ROOT, controllers.replace(/^name=/, ''), path, 'cgroup.procs');
    if (existsSync(file)) return file;
  }
  return undefined;
}

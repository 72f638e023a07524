import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { throwIfExhausted } from '../../../faults/exhausted.js';
import { processEntry } from '../../host/processes.js';

const CGROUP_ROOT = '/sys/fs/cgroup';

/** The processes of one incarnation of a container. */
export interface ContainerProcesses {
  /** Returns the ids of the live processes, in the kit's process namespace. */
  pids(): number[];
  /** True for processes of this kernel, which can be signalled without the container engine. */
  readonly isLocal: boolean;
}

/** The processes of a container that ended before it could be inspected. */
export const NO_PROCESSES: ContainerProcesses = { pids: () => [], isLocal: true };

/**
 * Finds the processes of a container through the kernel's list of its control group, which includes all
 * descendants.
 * @param pid id of the container's first process.
 * @returns undefined when the container does not run on this kernel, or when the kit cannot see it.
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

/**
 * Finds the `cgroup.procs` file of a container. Version 2 of control groups has one hierarchy. Version 1 has
 * one for each controller, and any of them will do.
 */
function cgroupProcsFile(pid: number, containerId: string): string | undefined {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/cgroup`, 'latin1');
  } catch (error) {
    throwIfExhausted(error);
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

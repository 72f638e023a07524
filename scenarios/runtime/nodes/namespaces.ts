import { lstatSync, readdirSync, statfsSync } from 'node:fs';
import { basename, join } from 'node:path';
import { removeTree } from '../../../faults/files/remove-tree.js';
import { runTool } from '../../../faults/power/mounts.js';
import { sleepSync } from '../../../faults/waiting.js';
import { allProcesses, networkNamespaceOf, sendSignal } from '../../host/processes.js';
import { stopProcesses } from '../../host/stop-processes.js';

/*
 * The namespaces of one network are held by mounts on files of one directory: one file per node with the name of the node, and
 * one for the bridge. So a network needs no process, and it can be found and removed when the kit is dead.
 */

/** File of the namespace of the bridge. No node has this name, because of the underscore. */
export const BRIDGE_FILE = '_bridge';
/** Name, in the namespace of the bridge, of the link to the kit. */
export const KIT_LINK = 'kit';

/** `NSFS_MAGIC` of the kernel: the type of the filesystem of a namespace. */
const NAMESPACE_FILESYSTEM = 0x6e736673;
/** Upper bound for the end of killed processes, in ms. A process that waits for a stopped disk does not end. */
const KILL_TIMEOUT_MS = 2000;
const KILL_RETRY_MS = 5;

/** Matches the name of the directory of a network: `plugpull-RUNID-net-` and eight hexadecimal digits. */
export const NETWORK_DIRECTORY = /^plugpull-.+-net-[0-9a-f]{8}$/;

/** Returns the namespace that a file holds, in the form `net:[NUMBER]`; undefined when it holds none. */
export function namespaceIn(file: string): string | undefined {
  try {
    // Without a mount it is an ordinary file, whose number means nothing.
    if (statfsSync(file).type !== NAMESPACE_FILESYSTEM) return undefined;
    return `net:[${lstatSync(file).ino}]`;
  } catch {
    return undefined;
  }
}

/** Lists the live processes in the namespaces of a network. */
export function processesInNetwork(dir: string): number[] {
  const own = new Set(namespaceFiles(dir).flatMap((file) => namespaceIn(file) ?? []));
  if (own.size === 0) return [];
  return allProcesses().flatMap(({ pid }) => (own.has(networkNamespaceOf(pid) ?? '') ? [pid] : []));
}

function namespaceFiles(dir: string): string[] {
  try {
    return readdirSync(dir).map((name) => join(dir, name));
  } catch {
    return [];
  }
}

/**
 * Removes a network, and kills every process in it. Does nothing when it is gone. It can be called from an exit handler.
 * @returns false when nothing was there.
 * @throws RemovalError when a namespace cannot be unmounted.
 */
export function removeNetwork(dir: string): boolean {
  if (!NETWORK_DIRECTORY.test(basename(dir))) throw new Error(`${dir}: expected the directory of a network`);
  killAll(dir);
  const bridge = join(dir, BRIDGE_FILE);
  if (namespaceIn(bridge) !== undefined) removeKitLink(bridge);
  return removeTree(dir, { unmount: 'all' });
}

function killAll(dir: string): void {
  const deadline = performance.now() + KILL_TIMEOUT_MS;
  while (performance.now() < deadline) {
    const pids = stopProcesses(
      () => processesInNetwork(dir),
      (pid) => sendSignal(pid, 'SIGSTOP'),
    );
    if (pids.size === 0) return;
    for (const pid of pids) sendSignal(pid, 'SIGKILL');
    sleepSync(KILL_RETRY_MS);
  }
}

/** Removes the link to the kit. The kernel also removes it with the namespace, but only some time later. */
function removeKitLink(bridge: string): void {
  try {
    runTool('nsenter', [`--net=${bridge}`, '--', 'ip', 'link', 'delete', 'dev', KIT_LINK]);
  } catch {
    // The set-up has not come so far, or the link is gone already.
  }
}

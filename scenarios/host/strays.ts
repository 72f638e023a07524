import { readFileSync } from 'node:fs';
import { isOwnChild } from './orphans.js';
import {
  allProcesses,
  commandLineOf,
  networkNamespaceOf,
  openFilesOf,
  readLinkOf,
  readText,
  sendSignal,
} from './processes.js';

/** Criteria by which a process counts as a stray of a target. */
export interface StrayCriteria {
  /**
   * Directories of the target. A process is a stray when its working directory or an open file is in one of
   * them, or when its command line names a path in one.
   */
  dirs: readonly string[];
  /** Ports of the target. A process is also a stray when it listens on one of them. */
  ports: readonly number[];
  /** Network namespace of the target alone, as /proc names it: every process in it is a stray. */
  network?: string | undefined;
  /**
   * Earliest start of a stray, in clock ticks since boot, as in /proc. A process that was started before this
   * time is never a stray.
   */
  sinceTicks: number;
  /**
   * True spares processes that have a terminal, and processes that only their command line identifies: a
   * person may be reading what a run has left.
   */
  daemonsOnly?: boolean;
}

const TICKS_PER_SECOND = 100;
const TCP_LISTEN_STATE = '0A';

/** Returns the current time in clock ticks since boot. */
export function ticksNow(): number {
  return Math.floor(Number(readFileSync('/proc/uptime', 'latin1').split(' ')[0]) * TICKS_PER_SECOND);
}

/**
 * Kills processes that a target has left behind and that neither their group nor their environment identifies
 * any more: a daemon that forked twice, started a session, and cleared its environment. The directories and
 * ports that it uses identify it.
 * @returns the ids and command lines of the killed processes.
 */
export function killStrays({
  dirs,
  ports,
  network,
  sinceTicks,
  daemonsOnly = false,
}: StrayCriteria): { pid: number; command: string }[] {
  const sockets = listenersOn(ports);
  const isInDirs = (path: string | undefined) =>
    path !== undefined && dirs.some((dir) => path === dir || path.startsWith(`${dir}/`));
  const strays = allProcesses().filter(({ pid, startTicks, terminal }) => {
    // Spare the kit and its own children, such as the daemon of a recorded disk: the kit stops those itself.
    if (pid === process.pid || isOwnChild(pid) || startTicks < sinceTicks) return false;
    if (daemonsOnly && terminal !== 0) return false;
    return (
      (network !== undefined && networkNamespaceOf(pid) === network) ||
      isInDirs(readLinkOf(`/proc/${pid}/cwd`)) ||
      openFilesOf(pid).some((path) => isInDirs(path) || sockets.has(path)) ||
      // A daemon that has only just started has opened no file yet.
      (!daemonsOnly && mentionsPath(readText(`/proc/${pid}/cmdline`), dirs))
    );
  });
  return strays.flatMap(({ pid }) => {
    const command = commandLineOf(pid);
    return sendSignal(pid, 'SIGKILL') ? [{ pid, command }] : [];
  });
}

/** Reports whether the text contains one of the paths, other than as the beginning of a longer name. */
function mentionsPath(text: string, paths: readonly string[]): boolean {
  return paths.some((path) => text.split(path).some((rest, index) => index > 0 && !/^[\w.-]/.test(rest)));
}

/**
 * Lists the sockets that listen on the given ports, in the form that the links of open files have:
 * `socket:[inode]`.
 */
function listenersOn(ports: readonly number[]): Set<string> {
  const sockets = new Set<string>();
  for (const table of ['/proc/net/tcp', '/proc/net/tcp6']) {
    for (const line of readText(table).split('\n').slice(1)) {
      const fields = line.trim().split(/\s+/);
      const port = Number.parseInt(fields[1]?.split(':').at(-1) ?? '', 16);
      if (fields[3] === TCP_LISTEN_STATE && ports.includes(port)) sockets.add(`socket:[${fields[9]}]`);
    }
  }
  return sockets;
}

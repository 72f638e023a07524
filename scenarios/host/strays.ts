import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { allProcesses, sendSignal } from './processes.js';

/** What a process must have to do with a target to be called a stray of it. */
export interface StrayCriteria {
  /** Its working directory or an open file lies below one of these, or its command line names one or what is below. */
  dirs: readonly string[];
  /** Or it listens on one of these. */
  ports: readonly number[];
  /** And it is not older than this (clock ticks since boot, as in /proc). */
  sinceTicks: number;
  /** One with a terminal is left alone, and to name a directory is not enough: a person may be looking at what a run has left. */
  daemonsOnly?: boolean;
}

const TICKS_PER_SECOND = 100;
const TCP_LISTEN_STATE = '0A';

/** Clock ticks since boot, now. */
export function ticksNow(): number {
  return Math.floor(Number(readFileSync('/proc/uptime', 'latin1').split(' ')[0]) * TICKS_PER_SECOND);
}

/**
 * Kills what a target has left behind that neither its group nor its environment tells any more: a daemon that forked
 * twice, started a session, and cleaned its environment. It is known by the ground on which it works.
 * @returns the processes that were killed.
 */
export function killStrays({ dirs, ports, sinceTicks, daemonsOnly = false }: StrayCriteria): number[] {
  const sockets = listenersOn(ports);
  const isInDirs = (path: string | undefined) =>
    path !== undefined && dirs.some((dir) => path === dir || path.startsWith(`${dir}/`));
  const strays = allProcesses().filter(({ pid, parent, startTicks, terminal }) => {
    // What the kit has started itself, such as the daemon of a recorded disk, is its own to stop.
    if (pid === process.pid || parent === process.pid || startTicks < sinceTicks) return false;
    if (daemonsOnly && terminal !== 0) return false;
    return (
      isInDirs(readLinkOf(`/proc/${pid}/cwd`)) ||
      openFilesOf(pid).some((path) => isInDirs(path) || sockets.has(path)) ||
      // One that has only just begun has opened nothing yet.
      (!daemonsOnly && mentionsPath(readTextOf(`/proc/${pid}/cmdline`), dirs))
    );
  });
  return strays.flatMap(({ pid }) => (sendSignal(pid, 'SIGKILL') ? [pid] : []));
}

/** Does the text have one of the paths in it, not as the beginning of a longer name? */
function mentionsPath(text: string, paths: readonly string[]): boolean {
  return paths.some((path) => text.split(path).some((rest, index) => index > 0 && !/^[\w.-]/.test(rest)));
}

/** The sockets that listen on these ports, as links of open files name them. */
function listenersOn(ports: readonly number[]): Set<string> {
  const sockets = new Set<string>();
  for (const table of ['/proc/net/tcp', '/proc/net/tcp6']) {
    for (const line of readTextOf(table).split('\n').slice(1)) {
      const fields = line.trim().split(/\s+/);
      const port = Number.parseInt(fields[1]?.split(':').at(-1) ?? '', 16);
      if (fields[3] === TCP_LISTEN_STATE && ports.includes(port)) sockets.add(`socket:[${fields[9]}]`);
    }
  }
  return sockets;
}

function openFilesOf(pid: number): string[] {
  let names: string[];
  try {
    names = readdirSync(`/proc/${pid}/fd`);
  } catch {
    return [];
  }
  return names.flatMap((name) => readLinkOf(`/proc/${pid}/fd/${name}`) ?? []);
}

function readLinkOf(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    // It has ended meanwhile, or belongs to somebody else.
    return undefined;
  }
}

function readTextOf(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}

import type { ChildProcess } from 'node:child_process';
import { subscribe } from 'node:diagnostics_channel';
import { readdirSync } from 'node:fs';
import koffi from 'koffi';
import { type ProcessEntry, processEntry } from './processes.js';

const libc = koffi.load(null);
const prctl = libc.func('int prctl(int option, ulong value, ulong third, ulong fourth, ulong fifth)') as (
  option: number,
  value: number,
  third: number,
  fourth: number,
  fifth: number,
) => number;
const waitpid = libc.func('int waitpid(int pid, void *status, int options)') as (
  pid: number,
  status: null,
  options: number,
) => number;

const PR_SET_CHILD_SUBREAPER = 36;
const WNOHANG = 1;
/** Time after the exit of a child at which zombies are collected, in ms: many children may exit at once. */
const REAP_DELAY_MS = 50;

/** Children that this process has started itself. Node waits for them; nobody else may. */
const ownChildren = new Set<ChildProcess>();
let adopts: boolean | undefined;
let isReapPlanned = false;

// Subscribe when this module is loaded, so that no child is missed. The channel does not report the children of
// synchronous calls: they have ended when the call returns.
subscribe('child_process', (message) => {
  const { process: child } = message as { process: ChildProcess };
  ownChildren.add(child);
  child.once('exit', () => ownChildren.delete(child));
  child.once('error', () => {
    if (child.pid === undefined) ownChildren.delete(child);
  });
});

/**
 * Makes this process the parent of every orphan among its descendants (a child subreaper). A daemon that starts a
 * session of its own and clears its environment can then be found: it becomes a child of this process when its own
 * parent ends. It needs no root. Children do not inherit the setting, and it ends with this process. May be called
 * again.
 * @returns false when the kernel has no child subreapers.
 */
export function adoptOrphans(): boolean {
  if (adopts === undefined) {
    adopts = prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) === 0;
    // Node waits only for its own children. Without this, orphans would stay as zombies until the kit ends.
    if (adopts)
      process.on('SIGCHLD', () => {
        if (isReapPlanned) return;
        isReapPlanned = true;
        setTimeout(() => {
          isReapPlanned = false;
          reapOrphans();
        }, REAP_DELAY_MS).unref();
      });
  }
  return adopts;
}

/** Reports whether this process has started the process itself; an adopted orphan is no own child. */
export function isOwnChild(pid: number): boolean {
  return [...ownChildren].some((child) => child.pid === pid);
}

/** Returns the adopted orphans among the processes. Their descendants are not among them. */
export function adoptedAmong(processes: readonly ProcessEntry[]): ProcessEntry[] {
  if (adopts !== true) return [];
  return processes.filter(({ pid, parent }) => parent === process.pid && !isOwnChild(pid));
}

function reapOrphans(): void {
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const entry = processEntry(Number(name));
    if (entry?.parent === process.pid && entry.state === 'Z' && !isOwnChild(entry.pid))
      waitpid(entry.pid, null, WNOHANG);
  }
}

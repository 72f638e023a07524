import { type ChildProcess, spawn } from 'node:child_process';
import type { Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import type { StoppedDisk } from '../../faults/power/mounts.js';

/** One line of JSON from the kit to its watchdog. */
export type WatchdogMessage =
  | { kind: 'watch'; runId: string; stateDir: string }
  | { kind: 'forget'; runId: string }
  /** The kit is about to stop a disk. The watchdog resumes it when it is still stopped after `deadlineMs`. */
  | { kind: 'stopping'; disk: StoppedDisk; deadlineMs: number }
  | { kind: 'resumed'; disk: StoppedDisk };

/** Path of the watchdog's program. It is a path and no import, because the program uses what is above this folder. */
const PROGRAM = fileURLToPath(new URL('../clean/watchdog-program.js', import.meta.url));
/**
 * Longest time for which a disk may stay stopped, in ms. A cut needs some milliseconds, and some seconds on a busy
 * machine. Meanwhile every program that lists or syncs the disks of the machine waits.
 */
const STOP_DEADLINE_MS = 60_000;
/** Upper bound of the starts of the watchdog: a target may kill it again and again. */
const MAX_STARTS = 5;
/**
 * Variables that the watchdog gets: it finds the lists of resources and the container engine by them. It gets no others,
 * because one of them would mark it as a process of a run.
 */
const PASSED_ON = /^(PATH|HOME|TMPDIR|XDG_STATE_HOME|DOCKER_.*)$/;

/** A run that is watched. */
interface WatchedRun {
  message: WatchdogMessage;
  onReplaced: (watchdog: WatchdogProcess) => void;
}

const runs = new Map<string, WatchedRun>();
const stoppedDisks = new Map<string, WatchdogMessage>();
let watchdog: ChildProcess | undefined;
let starts = 0;

/** A watchdog as the registry of a run names it. */
export interface WatchdogProcess {
  pid: number;
}

/**
 * Lets the watchdog of this process clean up after a run when this process dies without having done so. The first
 * call starts the watchdog: a process in a session of its own that waits for the end of a pipe from this process.
 * @param onReplaced is called with each later watchdog, which takes the place of one that was killed. It must not throw.
 * @returns the watchdog; undefined when it cannot be started. The run then goes on without one.
 */
export function watchRun(
  runId: string,
  stateDir: string,
  onReplaced: (watchdog: WatchdogProcess) => void,
): WatchdogProcess | undefined {
  const message: WatchdogMessage = { kind: 'watch', runId, stateDir };
  runs.set(runId, { message, onReplaced });
  if (watchdog === undefined) startWatchdog();
  else send(message);
  return watchdog?.pid === undefined ? undefined : { pid: watchdog.pid };
}

/** Ends the watch over a run that has ended in order. */
export function forgetRun(runId: string): void {
  if (runs.delete(runId)) send({ kind: 'forget', runId });
}

/** Must be called before a disk is stopped. The watchdog resumes it when this process dies or hangs. */
export function diskStopping(disk: StoppedDisk, deadlineMs = STOP_DEADLINE_MS): void {
  const message: WatchdogMessage = { kind: 'stopping', disk, deadlineMs };
  stoppedDisks.set(JSON.stringify(disk), message);
  send(message);
}

/** Must be called after the disk was resumed. */
export function diskResumed(disk: StoppedDisk): void {
  if (stoppedDisks.delete(JSON.stringify(disk))) send({ kind: 'resumed', disk });
}

function startWatchdog(): void {
  if (starts >= MAX_STARTS) return;
  starts += 1;
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => PASSED_ON.test(name)));
  const child = spawn(process.execPath, [PROGRAM, `${process.pid}`], {
    // A signal to the kit's process group must not reach it, and it must keep no directory in use.
    detached: true,
    cwd: '/',
    stdio: ['pipe', 'ignore', 'ignore'],
    env,
  });
  watchdog = child;
  const lost = () => {
    if (watchdog !== child) return;
    watchdog = undefined;
    if (runs.size === 0) return;
    startWatchdog();
    const pid = newest()?.pid;
    if (pid !== undefined) for (const { onReplaced } of runs.values()) onReplaced({ pid });
  };
  child.on('error', lost);
  child.on('exit', lost);
  child.stdin.on('error', () => {});
  // Neither the watchdog nor its pipe keeps this process alive.
  child.unref();
  (child.stdin as Socket).unref();
  for (const { message } of runs.values()) send(message);
  for (const message of stoppedDisks.values()) send(message);
}

/** Returns the watchdog that was started last, if it can still be used. */
function newest(): ChildProcess | undefined {
  return watchdog;
}

/** Sends a message. A pipe takes a short line at once, before the call returns. */
function send(message: WatchdogMessage): void {
  watchdog?.stdin?.write(`${JSON.stringify(message)}\n`);
}

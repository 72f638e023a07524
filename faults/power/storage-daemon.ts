import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isMainThread } from 'node:worker_threads';
import { findProgram } from '../programs.js';
import { allThreadsInState } from '../thread-state.js';
import { sleepSync, until } from '../waiting.js';
import { runTool, unmountDead } from './mounts.js';

/** Name of the daemon's program. */
export const STORAGE_DAEMON = 'qemu-storage-daemon';

/** The options of `StorageDaemon.start`. */
export interface StorageDaemonOptions {
  /** Path of the image file with the bytes of the device. */
  image: string;
  /**
   * Path of the log, which is overwritten. It gets every write and flush in the order of completion.
   * Undefined: no log.
   */
  log: string | undefined;
  /** Path of the file that represents the device; created if it does not exist. */
  device: string;
  /** Directory where the control files of FUSE may be mounted. */
  fuseControlDir: string;
  /** Path of the file for the daemon's messages. */
  daemonLog: string;
  sizeBytes: number;
  /** Called when the daemon ends although it was not stopped, with `SIGKILL` or `code 1`. */
  onLost(how: string): void;
  /**
   * Variables that are added to the daemon's environment, so that the daemon can be found when the kit is
   * gone.
   */
  env: Readonly<Record<string, string>>;
}

/** Upper bound for the daemon's start, in ms. */
const START_TIMEOUT_MS = 10_000;
/** Upper bound for a stop of the daemon, or for its exit after a signal, in ms. */
const EXIT_TIMEOUT_MS = 5000;
/**
 * Options for the daemon's access to its files, best first. With io_uring a request needs one thread switch
 * less; where io_uring is forbidden (in many containers), threads work as well. Neither option flushes the
 * image file: this machine does not crash, and a flush of the device is in the log in any case.
 */
const IO_OPTIONS = ['aio=io_uring,cache.no-flush=on', 'aio=threads,cache.no-flush=on'];

/** A qemu-storage-daemon process that exports an image as a file and logs the requests to it. */
export class StorageDaemon {
  readonly #child: ChildProcess;
  readonly #device: string;
  #isPaused = false;
  #isStopping = false;

  private constructor(child: ChildProcess, device: string) {
    this.#child = child;
    this.#device = device;
  }

  /**
   * Starts the daemon.
   * @throws Error with the daemon's own message when it does not serve the device within 10 s.
   */
  static async start(options: StorageDaemonOptions): Promise<StorageDaemon> {
    let failure: unknown;
    for (const access of IO_OPTIONS) {
      try {
        return await StorageDaemon.#startWith(options, access);
      } catch (error) {
        failure = error;
      }
    }
    throw failure;
  }

  static async #startWith(options: StorageDaemonOptions, access: string): Promise<StorageDaemon> {
    if (options.log !== undefined) writeFileSync(options.log, '');
    writeFileSync(options.device, '');
    const messages = openSync(options.daemonLog, 'w');
    const [program = STORAGE_DAEMON, ...prefix] = endsWithKit();
    const child = spawn(program, [...prefix, ...argumentsOf(options, access)], {
      // Use a separate process group: a Ctrl-C must reach only the kit, which then removes the disk in order.
      detached: true,
      stdio: ['ignore', messages, messages],
      env: { ...process.env, ...options.env },
    });
    closeSync(messages);
    let hasExited = false;
    child.on('error', () => {
      hasExited = true;
    });
    child.on('exit', () => {
      hasExited = true;
    });
    const isServing = () => hasExited || statSync(options.device).size === options.sizeBytes;
    const daemon = new StorageDaemon(child, options.device);
    const started = await until(isServing, START_TIMEOUT_MS, undefined, 2);
    try {
      if (started && !hasExited) {
        serialiseRequests(options.device, options.fuseControlDir);
        child.on('exit', (code, signal) => {
          if (!daemon.#isStopping) options.onLost(signal ?? `code ${code}`);
        });
        return daemon;
      }
    } catch (error) {
      daemon.stop();
      throw error;
    }
    daemon.stop();
    const output = readFileSync(options.daemonLog, 'utf8').trim();
    throw new Error(
      `${STORAGE_DAEMON} does not serve ${options.device}: ${output === '' ? 'it printed nothing' : output}`,
    );
  }

  /** Process id of the daemon. */
  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** Stops the daemon, so that every request waits. Returns when none of its threads runs any more. */
  pause(): void {
    this.#isPaused = true;
    this.#child.kill('SIGSTOP');
    const { pid } = this.#child;
    const deadline = performance.now() + EXIT_TIMEOUT_MS;
    while (pid !== undefined && !allThreadsInState(pid, 'TtZX')) {
      if (performance.now() > deadline) throw new Error(`${STORAGE_DAEMON} does not stop at SIGSTOP`);
    }
  }

  /**
   * Lets the stopped daemon continue.
   * @returns false when another process has resumed it since `pause`: requests after the stop were then completed.
   */
  resume(): boolean {
    const { pid } = this.#child;
    const isStopped = pid !== undefined && allThreadsInState(pid, 'TtZX');
    const wasPaused = this.#isPaused;
    this.#isPaused = false;
    this.#child.kill('SIGCONT');
    return !wasPaused || isStopped;
  }

  /**
   * Kills the daemon. It does not need the event loop, so it can be called from an exit handler. It may be
   * called twice. Completed requests are in the daemon's files.
   */
  stop(): void {
    this.#isStopping = true;
    const { pid, exitCode, signalCode } = this.#child;
    if (pid !== undefined && exitCode === null && signalCode === null) this.#child.kill('SIGKILL');
    const deadline = performance.now() + EXIT_TIMEOUT_MS;
    while (pid !== undefined && !allThreadsInState(pid, 'ZX') && performance.now() < deadline) sleepSync(1);
    unmountDead(this.#device);
  }
}

/**
 * Returns the command that starts the daemon in such a way that the kernel kills it when this process dies, even while
 * it is stopped. The signal is tied to the thread that starts the daemon: this must be the main thread. Without
 * setpriv, only the watchdog of the kit ends the daemon.
 */
function endsWithKit(): string[] {
  const setpriv = isMainThread ? findProgram('setpriv') : undefined;
  return setpriv === undefined ? [STORAGE_DAEMON] : [setpriv, '--pdeathsig', 'KILL', '--', STORAGE_DAEMON];
}

function argumentsOf({ image, log, device }: StorageDaemonOptions, access: string): string[] {
  const file = (name: string, path: string) => [
    '--blockdev',
    `driver=file,node-name=${name},filename=${quoted(path)},${access}`,
  ];
  const recorder = [
    '--blockdev',
    'driver=blklogwrites,node-name=recorded,file=image,log=log,log-sector-size=512,log-super-update-interval=1',
  ];
  const node = log === undefined ? 'image' : 'recorded';
  return [
    ...file('image', image),
    ...(log === undefined ? [] : [...file('log', log), ...recorder]),
    '--export',
    `type=fuse,id=device,node-name=${node},mountpoint=${quoted(device)},writable=on`,
  ];
}

/** Escapes a value for the daemon's option syntax, in which a comma ends a value and two commas mean one. */
const quoted = (path: string): string => path.replaceAll(',', ',,');

const SYSTEM_CONTROL = '/sys/fs/fuse/connections';

/**
 * Limits the kernel to one read or write in flight on a FUSE mount.
 *
 * The storage daemon (QEMU before 10.1) handles a new request in the middle of a write that it is working on,
 * and reads the request into the same buffer. With two writes at once, the first one ends with bytes of the
 * second, on the device and in the log. Requests without data (a flush, a read) overwrite only bytes that
 * were already used. Without the limit, a filesystem's log was damaged within a dozen cuts.
 *
 * @param ownControl directory for mounting the control files when the system has not mounted them.
 */
function serialiseRequests(mountPoint: string, ownControl: string): void {
  const { dev } = statSync(mountPoint);
  // Decode the minor number from glibc's device number: the kernel names a FUSE connection by it.
  const minor = (dev & 0xff) | ((dev >>> 12) & ~0xff);
  writeFileSync(join(controlDirectory(ownControl), `${minor}`, 'max_background'), '1');
}

function controlDirectory(own: string): string {
  if (existsSync(join(SYSTEM_CONTROL))) {
    const mounted = statSync(SYSTEM_CONTROL).dev !== statSync('/sys/fs/fuse').dev;
    if (mounted) return SYSTEM_CONTROL;
  }
  mkdirSync(own, { recursive: true });
  if (statSync(own).dev === statSync(join(own, '..')).dev)
    runTool('mount', ['-t', 'fusectl', 'plugpull', own]);
  return own;
}

import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { allThreadsInState } from '../thread-state.js';
import { sleepSync, until } from '../waiting.js';
import { runTool, unmountDead } from './mounts.js';

export const STORAGE_DAEMON = 'qemu-storage-daemon';

export interface StorageDaemonOptions {
  /** The device's bytes. */
  image: string;
  /** Made anew: every write and every flush in the order in which they were completed; none is recorded without. */
  log: string | undefined;
  /** The file that stands for the device; created empty if it is not there. */
  device: string;
  /** A directory where the control files of FUSE may be mounted. */
  fuseControlDir: string;
  /** The daemon's own words. */
  daemonLog: string;
  sizeBytes: number;
  /** Added to the daemon's environment, so that it can be found when the kit is gone. */
  env: Readonly<Record<string, string>>;
}

const START_TIMEOUT_MS = 10_000;
const EXIT_TIMEOUT_MS = 5000;
/**
 * How the daemon reads and writes its files. Through a ring a request costs one change of threads less; where the
 * ring is forbidden (many containers), threads do. Neither flushes the image file itself: this machine goes on
 * living, and a flush of the device is in the log all the same.
 */
const IO_OPTIONS = ['aio=io_uring,cache.no-flush=on', 'aio=threads,cache.no-flush=on'];

/** A daemon that serves an image as a file and records what is done to it. */
export class StorageDaemon {
  readonly #child: ChildProcess;
  readonly #device: string;

  private constructor(child: ChildProcess, device: string) {
    this.#child = child;
    this.#device = device;
  }

  /** @throws Error with the daemon's own words when it does not serve the device within 10 s. */
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
    const child = spawn(STORAGE_DAEMON, argumentsOf(options, access), {
      // Not in the kit's process group: a Ctrl-C is the kit's to handle.
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
        return daemon;
      }
    } catch (error) {
      daemon.stop();
      throw error;
    }
    daemon.stop();
    const output = readFileSync(options.daemonLog, 'utf8').trim();
    throw new Error(
      `${STORAGE_DAEMON} does not serve ${options.device}: ${output === '' ? 'it says nothing' : output}`,
    );
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** Stops it where it is: every request waits. Returns when none of its threads runs any more. */
  pause(): void {
    this.#child.kill('SIGSTOP');
    const { pid } = this.#child;
    const deadline = performance.now() + EXIT_TIMEOUT_MS;
    while (pid !== undefined && !allThreadsInState(pid, 'TtZX')) {
      if (performance.now() > deadline) throw new Error(`${STORAGE_DAEMON} does not stop at SIGSTOP`);
    }
  }

  resume(): void {
    this.#child.kill('SIGCONT');
  }

  /** Ends it at once, without waiting for the event loop; may be called twice. What it had answered is in its files. */
  stop(): void {
    const { pid, exitCode, signalCode } = this.#child;
    if (pid !== undefined && exitCode === null && signalCode === null) this.#child.kill('SIGKILL');
    const deadline = performance.now() + EXIT_TIMEOUT_MS;
    while (pid !== undefined && !allThreadsInState(pid, 'ZX') && performance.now() < deadline) sleepSync(1);
    unmountDead(this.#device);
  }
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

/** In the daemon's option syntax a comma ends a value, and two stand for one. */
const quoted = (path: string): string => path.replaceAll(',', ',,');

const SYSTEM_CONTROL = '/sys/fs/fuse/connections';

/**
 * Lets the kernel have one read or write at a time under way on a FUSE mount.
 *
 * The storage daemon (QEMU before 10.1) answers a request that comes while it works on a write in the middle of that
 * write, and reads it into the same buffer: two writes at once, and the first one ends with bytes of the second, on
 * the device and in the log. Requests that carry no data (a flush, a read) overwrite only what has been
 * looked at already. A filesystem's log was damaged by this within a dozen cuts.
 *
 * @param ownControl a directory for the control files where the system has not mounted them.
 */
function serialiseRequests(mountPoint: string, ownControl: string): void {
  const { dev } = statSync(mountPoint);
  // glibc's encoding of a device number; the kernel names a connection by the minor.
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

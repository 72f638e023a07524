import { existsSync, mkdirSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { CutReport, DiskStall, Loss, PowerDisk, Random } from '../fault.js';
import { removeTree } from '../files/remove-tree.js';
import { WriteLog } from '../write-log/reader.js';
import { type CutResult, cutPower } from './crash-image.js';
import { dropFilesystem, type Filesystem, makeFilesystem, mountFilesystem } from './filesystem.js';
import { attachLoop, detachLoops } from './loop.js';
import {
  copySparse,
  type PowerResource,
  type PowerResourceRegistry,
  RESUMED_EARLY,
  unmount,
  unmountDead,
} from './mounts.js';
import { STORAGE_DAEMON, StorageDaemon } from './storage-daemon.js';

/** The options of `BlocklogDisk.create`. */
export interface BlocklogDiskOptions {
  /** Directory for the images and the log. It is created, and removed by `remove`. A tmpfs is fastest. */
  dir: string;
  /** Directory where the filesystem is mounted; created if it does not exist. */
  mountPoint: string;
  sizeBytes: number;
  filesystem: Filesystem;
  /**
   * Device or image of `sizeBytes` bytes whose content is copied to the disk at the start. Default: an empty
   * filesystem.
   */
  from?: string;
  /**
   * False makes the same disk without the log, to measure the cost of recording. The power of such a disk
   * cannot be cut.
   */
  recorded: boolean;
  /**
   * Variables that are added to the daemon's environment, so that the daemon can be recognised as part of
   * this run.
   */
  env: Readonly<Record<string, string>>;
  registry: PowerResourceRegistry;
}

/**
 * A recorded disk. It consists of an image file, a storage daemon that logs all writes and flushes, a file
 * that the daemon exports through FUSE, a loop device on that file, and a real filesystem. Beside the image
 * in use there is a stable image. A cut brings the stable image to the state of the medium, makes the image
 * in use equal to it, and starts a new recording.
 */
export class BlocklogDisk implements PowerDisk {
  readonly backend = 'blocklog';
  readonly killsTarget = false;
  /** Undefined: this backend cannot make writes fail, because its log holds only requests that succeeded. */
  readonly writeErrors = undefined;
  readonly #options: BlocklogDiskOptions;
  readonly #files: {
    live: string;
    stable: string;
    log: string;
    device: string;
    control: string;
    messages: string;
  };
  readonly #resources: PowerResource[];
  onLost: ((why: string) => void) | undefined;
  #lost: string | undefined;
  #daemon: StorageDaemon | undefined;
  #log: WriteLog | undefined;

  private constructor(options: BlocklogDiskOptions) {
    this.#options = options;
    const file = (name: string) => join(options.dir, name);
    this.#files = {
      live: file('live.img'),
      stable: file('stable.img'),
      log: file('writes.log'),
      device: file('device'),
      control: file('control'),
      messages: file('daemon.log'),
    };
    // In the order of creation. They are removed in reverse order.
    this.#resources = [
      { kind: 'directory', path: options.dir },
      { kind: 'mount', path: this.#files.control },
      { kind: 'mount', path: this.#files.device },
      { kind: 'loop', path: this.#files.device },
      { kind: 'mount', path: options.mountPoint },
    ];
  }

  /**
   * Creates the disk with its filesystem and mounts it.
   * @throws Error with the message of the tool that failed.
   */
  static async create(options: BlocklogDiskOptions): Promise<BlocklogDisk> {
    const disk = new BlocklogDisk(options);
    for (const resource of disk.#resources) options.registry.made(resource);
    try {
      // Other users would read the image of the target's disk there.
      mkdirSync(options.dir, { recursive: true, mode: 0o700 });
      mkdirSync(options.mountPoint, { recursive: true });
      const { live, stable } = disk.#files;
      if (options.from === undefined) {
        writeFileSync(live, '');
        truncateSync(live, options.sizeBytes);
        makeFilesystem(options.filesystem, live);
      } else copySparse(options.from, live);
      if (options.recorded) copySparse(live, stable);
      await disk.#attach();
      disk.#mount();
    } catch (error) {
      disk.remove();
      throw error;
    }
    return disk;
  }

  stop(): number {
    const log = this.#requireLog();
    this.#pause();
    return log.completeEntries();
  }

  readonly stall: DiskStall = {
    begin: async () => this.#pause(),
    end: async () => this.resume(),
  };

  #pause(): void {
    const pid = this.#daemon?.pid;
    if (pid !== undefined) this.#options.registry.stopping?.({ kind: 'process', pid });
    this.#daemon?.pause();
  }

  /** @throws Error when the disk was not stopped until now: what came after `stop` may be confirmed. */
  resume(): void {
    if (!this.#letContinue()) throw new Error(RESUMED_EARLY);
  }

  #letContinue(): boolean {
    const pid = this.#daemon?.pid;
    const wasStopped = this.#daemon?.resume() ?? true;
    if (pid !== undefined) this.#options.registry.resumed?.({ kind: 'process', pid });
    return wasStopped;
  }

  async cut(cutPoint: number, loss: Loss, random: Random): Promise<CutReport> {
    const log = this.#requireLog();
    const clock = stopwatch();
    this.#detach();
    const drop = clock();
    const result = cutPower(log, cutPoint, this.#files, loss, random);
    log.close();
    this.#log = undefined;
    const image = clock();
    await this.#attach();
    const record = clock();
    this.#mount();
    const mount = clock();
    return {
      unflushedWrites: result.unflushedWrites,
      detail: describe(result, loss),
      lostPages: result.lostPages,
      tookMs: { drop, image, record, mount },
    };
  }

  /**
   * Ends the recording and detaches the device. The image from before the recording and the log remain until
   * `remove`.
   */
  endRecording(): { image: string; log: string } {
    this.#detach();
    this.#log?.close();
    this.#log = undefined;
    return { image: this.#files.stable, log: this.#files.log };
  }

  /** Returns the number of writes and flushes that the disk has completed. */
  completeEntries(): number {
    return this.#requireLog().completeEntries();
  }

  /**
   * Removes everything. It can be called in any state, more than once, and from an exit handler, because it
   * does not need the event loop.
   */
  remove(): void {
    this.#detach();
    unmount(this.#files.control);
    this.#log?.close();
    this.#log = undefined;
    removeTree(this.#options.dir);
    for (const resource of [...this.#resources].reverse()) this.#options.registry.gone(resource);
  }

  /** Paths of the files that reproduce the last recording: the image from before it, and its log. */
  get evidence(): string[] {
    return [this.#files.stable, this.#files.log].filter((file) => existsSync(file));
  }

  /** Reason why the disk no longer works; see `PowerDisk`. */
  get lost(): string | undefined {
    return this.#lost;
  }

  /** Process id of the daemon, or undefined when none runs. */
  get daemonPid(): number | undefined {
    return this.#daemon?.pid;
  }

  #requireLog(): WriteLog {
    if (this.#log === undefined) throw new Error('this disk is not recorded');
    return this.#log;
  }

  async #attach(): Promise<void> {
    const { live, log, device, control: fuseControlDir, messages: daemonLog } = this.#files;
    const { sizeBytes, env, recorded } = this.#options;
    this.#daemon = await StorageDaemon.start({
      image: live,
      log: recorded ? log : undefined,
      device,
      fuseControlDir,
      daemonLog,
      sizeBytes,
      onLost: (how) => {
        if (this.#lost !== undefined) return;
        this.#lost = `${STORAGE_DAEMON}, which serves the disk of the target, ended with ${how}: something outside the kit has killed it, or it has failed`;
        this.onLost?.(this.#lost);
      },
      env,
    });
  }

  #mount(): void {
    const { filesystem, mountPoint, recorded } = this.#options;
    mountFilesystem(filesystem, attachLoop(this.#files.device), mountPoint);
    // Open the log only after the mount: the daemon writes the head of the log with the first request.
    if (recorded) this.#log = new WriteLog(this.#files.log);
  }

  /**
   * Detaches the layers of the disk from the top down, so that the daemon has completed every request before
   * it ends, and its log is complete.
   */
  #detach(): void {
    this.#letContinue();
    dropFilesystem(this.#options.mountPoint);
    detachLoops(this.#files.device);
    this.#daemon?.stop();
    this.#daemon = undefined;
    unmountDead(this.#files.device);
  }
}

function describe(result: CutResult, loss: Loss): string {
  const { entries, flushedEntries, unflushedWrites, keptWrites, tornSectors, lostBytes } = result;
  const place = `power cut after ${entries} requests to the disk, ${flushedEntries} of them flushed`;
  if (unflushedWrites === 0) return `${place}, the cache of the drive was empty`;
  const torn = tornSectors > 0 ? ` and ${tornSectors} sectors of the next` : '';
  const kept = loss === 'all-lost' ? '' : `, ${keptWrites} of them had reached the medium${torn}`;
  return `${place}, ${unflushedWrites} writes were in the cache of the drive${kept}, ${lostBytes} bytes of them lost`;
}

/** Makes a function that returns the milliseconds since its last call, rounded. */
function stopwatch(): () => number {
  let lastMs = performance.now();
  return () => {
    const nowMs = performance.now();
    const tookMs = Math.round(nowMs - lastMs);
    lastMs = nowMs;
    return tookMs;
  };
}

import { existsSync, mkdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { CutReport, Loss, PowerDisk, Random } from '../fault.js';
import { WriteLog } from '../write-log/reader.js';
import { type CutResult, cutPower } from './crash-image.js';
import { dropFilesystem, type Filesystem, makeFilesystem, mountFilesystem } from './filesystem.js';
import { attachLoop, detachLoops } from './loop.js';
import {
  copySparse,
  type PowerResource,
  type PowerResourceRegistry,
  unmount,
  unmountDead,
} from './mounts.js';
import { StorageDaemon } from './storage-daemon.js';

export interface BlocklogDiskOptions {
  /** Holds the images and the log; made, and removed in the end. Best on tmpfs. */
  dir: string;
  /** Where the filesystem appears; made if it is not there. */
  mountPoint: string;
  sizeBytes: number;
  filesystem: Filesystem;
  /** A device to begin with instead of an empty filesystem, of `sizeBytes`; it is copied. */
  from?: string;
  /** False: the same disk without the log, to measure what recording costs; it cannot be cut. */
  recorded: boolean;
  /** Marks the daemon as one of this run. */
  env: Readonly<Record<string, string>>;
  registry: PowerResourceRegistry;
}

/**
 * A recorded disk: image file, storage daemon with a log of all writes and flushes, one file through FUSE, a loop device
 * on that, a real filesystem. Beside the image in use lies the stable one, which a cut brings to the state of the
 * medium; the image in use is then made equal to it, and a new recording begins.
 */
export class BlocklogDisk implements PowerDisk {
  readonly backend = 'blocklog';
  readonly killsTarget = false;
  /** What is recorded has been done: an error is not in the log. */
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
    // In the order in which they are made; they are removed the other way round.
    this.#resources = [
      { kind: 'directory', path: options.dir },
      { kind: 'mount', path: this.#files.control },
      { kind: 'mount', path: this.#files.device },
      { kind: 'loop', path: this.#files.device },
      { kind: 'mount', path: options.mountPoint },
    ];
  }

  /** Makes the disk with an empty filesystem and mounts it. @throws Error with the words of the tool that failed. */
  static async create(options: BlocklogDiskOptions): Promise<BlocklogDisk> {
    const disk = new BlocklogDisk(options);
    for (const resource of disk.#resources) options.registry.made(resource);
    try {
      mkdirSync(options.dir, { recursive: true });
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
    this.#daemon?.pause();
    return log.completeEntries();
  }

  resume(): void {
    this.#daemon?.resume();
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
      tookMs: { drop, image, record, mount },
    };
  }

  /** Ends the recording where it is. The device is gone; what it was before and the log stay until `remove`. */
  endRecording(): { image: string; log: string } {
    this.#detach();
    this.#log?.close();
    this.#log = undefined;
    return { image: this.#files.stable, log: this.#files.log };
  }

  /** How many writes and flushes the disk has answered. */
  completeEntries(): number {
    return this.#requireLog().completeEntries();
  }

  /** Removes all of it; works in any state, may be called twice, and does not need the event loop. */
  remove(): void {
    this.#detach();
    unmount(this.#files.control);
    this.#log?.close();
    this.#log = undefined;
    rmSync(this.#options.dir, { recursive: true, force: true });
    for (const resource of [...this.#resources].reverse()) this.#options.registry.gone(resource);
  }

  /** The files that tell the whole story of the last recording: the image before it, and its log. */
  get evidence(): string[] {
    return [this.#files.stable, this.#files.log].filter((file) => existsSync(file));
  }

  /** Number of the daemon's process, or undefined. */
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
      env,
    });
  }

  #mount(): void {
    const { filesystem, mountPoint, recorded } = this.#options;
    mountFilesystem(filesystem, attachLoop(this.#files.device), mountPoint);
    // Only now: the daemon writes the head of the log with the first request.
    if (recorded) this.#log = new WriteLog(this.#files.log);
  }

  /** From the top down, so that the daemon has answered everything before it goes, and its log is whole. */
  #detach(): void {
    this.resume();
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
  if (unflushedWrites === 0) return `${place}, no write was unflushed`;
  const torn = tornSectors > 0 ? ` and ${tornSectors} sectors of the next` : '';
  const kept = loss === 'all-lost' ? '' : `, ${keptWrites} of them had reached the medium${torn}`;
  return `${place}, ${unflushedWrites} writes were unflushed${kept}, ${lostBytes} bytes lost`;
}

/** Milliseconds since the last call, whole. */
function stopwatch(): () => number {
  let lastMs = performance.now();
  return () => {
    const nowMs = performance.now();
    const tookMs = Math.round(nowMs - lastMs);
    lastMs = nowMs;
    return tookMs;
  };
}

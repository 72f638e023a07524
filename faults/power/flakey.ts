import { randomBytes } from 'node:crypto';
import type { Availability, CutReport, DiskStall, PowerDisk, WriteErrorInjector } from '../fault.js';
import type { Filesystem } from './filesystem.js';
import { mkfsCommand, mountCommand } from './filesystem.js';
import { type CommandHost, runScript } from './host.js';
import { RESUMED_EARLY } from './mounts.js';

/** The options of `FlakeyDisk.create`. */
export interface FlakeyDiskOptions {
  /** The machine whose kernel holds the device. */
  host: CommandHost;
  /** A block device that no other program uses. Everything on it is overwritten. */
  device: string;
  /** Name of the device below /dev/mapper; it contains the run's id. */
  name: string;
  /** Directory where the filesystem is mounted; created if it does not exist. */
  mountPoint: string;
  filesystem: Filesystem;
  /**
   * Shell lines that kill every process of the target on `host`. The lines run while the disk is stopped.
   * Undefined when the caller kills the processes between `stop` and `resume`.
   */
  killAll?: string;
}

const SCRIPT_TIMEOUT_MS = 60_000;
/** Table of a device that never fails: up for 60 s, then down for 0 s. */
const HEALTHY_TABLE = '60 0';
/**
 * Table of a device that is always down: writes and flushes are dropped, and answered as if they had
 * succeeded.
 */
const DROPPING_TABLE = '0 60 1 drop_writes';
/** Table of a device that is always down: every write and flush is answered with EIO. */
const FAILING_TABLE = '0 60 1 error_writes';

/**
 * Shell functions of the scripts. All dmsetup calls work without udev: nothing else would make the nodes of
 * /dev/mapper, or answer the cookie that dmsetup waits for. `unused` waits a moment: a process of another run that
 * is being started holds a copy of every mount until it has unmounted them. `load` replaces the table in use (its arguments
 * are the end of the new table), without making the filesystem write anything first.
 */
const SHELL_FUNCTIONS = `
quiet() { "$@" >/dev/null; }
table() { echo "0 $(blockdev --getsz "$device") flakey $device 0 $*"; }
load() { quiet dmsetup load "$name" --table "$(table "$@")"; }
suspend() { quiet dmsetup suspend --nolockfs --noudevsync "$name"; }
resume() { quiet dmsetup resume --noudevsync "$name"; }
suspended() { [ "$(dmsetup info -c --noheadings -o suspended "$name" | tr -d ' ')" = Suspended ]; }
change() { suspend; load "$@"; resume; }
writes() { set -- $(cat "/sys/dev/block/$(dmsetup info -c --noheadings --separator : -o major,minor "$name")/stat"); echo "$5"; }
mounted() { grep -q " $mount " /proc/self/mounts; }
away() {
  tries=0
  while mounted; do
    umount "$mount" 2>/dev/null && continue
    tries=$((tries + 1))
    if [ $tries -gt 100 ]; then umount "$mount"; fi
    sleep 0.05
  done
}
users() { dmsetup info -c --noheadings -o open "$name" | tr -d ' '; }
unused() {
  tries=0
  while users=$(users) && [ "$users" != 0 ] && [ $tries -lt 40 ]; do tries=$((tries + 1)); sleep 0.05; done
  if [ "$users" != 0 ]; then echo "$mount is unmounted and $name still in use ($users)" >&2; exit 1; fi
}
`;
const SCRIPT_HEAD = `device=$1; name=$2; mount=$3; ${SHELL_FUNCTIONS}`;

const CREATE = `${SCRIPT_HEAD}
modprobe dm-flakey 2>/dev/null || true
away
if dmsetup info "$name" >/dev/null 2>&1; then quiet dmsetup remove --retry --noudevsync "$name"; fi
mkdir -p "$mount"
MAKE
quiet dmsetup create "$name" --noudevsync --table "$(table ${HEALTHY_TABLE})"
quiet dmsetup mknodes
MOUNT
`;

/**
 * Script that stops the disk. The kernel waits for writes in flight and holds back the rest. It does not
 * write back dirty pages.
 */
const STOP = `${SCRIPT_HEAD}
suspend
KILL`;

/** Script that stops the disk and kills nothing. */
const STALL = `${SCRIPT_HEAD}
if ! suspended; then suspend; fi`;

/** Line by which RESUME says that the disk was not stopped any more. */
const NOT_SUSPENDED = 'not suspended';

/** Script that ends a stall: the kernel sends the requests that it has held back. */
const END_STALL = `${SCRIPT_HEAD}
if suspended; then resume; else echo '${NOT_SUSPENDED}'; fi`;

/**
 * Script that lets the stopped disk go on and drop all writes. Something else, such as the watchdog, may have resumed the
 * disk: it then has taken writes after `stop`. The script looks after it has loaded the table: a resume after the look
 * takes the dropping table into use, too.
 */
const RESUME = `${SCRIPT_HEAD}
load ${DROPPING_TABLE}
if suspended; then resume; else quiet dmsetup clear "$name"; echo '${NOT_SUSPENDED}'; fi`;

/**
 * Script that completes the cut. The unmount writes dirty pages to the device, which drops them. A device
 * that is still in use after the unmount would keep dirty pages alive, and they would survive the cut. The
 * script fails then, because a pass would be wrong.
 */
const CUT = `${SCRIPT_HEAD}
before=$(writes)
away
unused
echo "dropped $(($(writes) - before))"
change ${HEALTHY_TABLE}
MOUNT`;

/**
 * Script that makes writes fail. The writes are counted while the disk is stopped, so that no write can fail
 * before the count.
 */
const START_FAILING = `${SCRIPT_HEAD}
suspend
load ${FAILING_TABLE}
writes
resume`;

const COUNT_WRITES = `${SCRIPT_HEAD}
writes`;

const STOP_FAILING = `${SCRIPT_HEAD}
change ${HEALTHY_TABLE}`;

/**
 * Script that remounts the disk. If writes still fail, the unmount loses the dirty pages, as at a power cut.
 */
const REMOUNT = `${SCRIPT_HEAD}
away
unused
change ${HEALTHY_TABLE}
MOUNT`;

const REMOVE = `${SCRIPT_HEAD}
away
if dmsetup info "$name" >/dev/null 2>&1; then quiet dmsetup remove --retry --noudevsync "$name"; fi`;

/**
 * A disk behind dm-flakey. A cut drops every write that comes after it. Writes that the filesystem had sent
 * to the disk before the cut stay, flushed or not: this backend cannot reorder or tear writes, or lose the
 * cache of a drive.
 */
export class FlakeyDisk implements PowerDisk {
  readonly backend = 'flakey';
  readonly killsTarget: boolean;
  readonly writeErrors: WriteErrorInjector;
  readonly stall: DiskStall;
  #isStalled = false;
  readonly #options: FlakeyDiskOptions;
  /** Number of writes to the device before writes began to fail. */
  #writesBefore = 0;

  private constructor(options: FlakeyDiskOptions) {
    this.#options = options;
    this.killsTarget = options.killAll !== undefined;
    this.stall = {
      begin: async () => {
        this.#isStalled = true;
        await this.#run(STALL);
      },
      end: async () => {
        if (!this.#isStalled) return;
        this.#isStalled = false;
        const output = await this.#run(END_STALL);
        if (output.includes(NOT_SUSPENDED)) throw new Error(RESUMED_EARLY);
      },
    };
    this.writeErrors = {
      begin: async () => {
        this.#writesBefore = Number(await this.#run(START_FAILING));
      },
      failedWrites: async () => Number(await this.#run(COUNT_WRITES)) - this.#writesBefore,
      end: async () => {
        await this.#run(STOP_FAILING);
      },
      remount: async () => {
        await this.#run(REMOUNT);
      },
    };
  }

  /**
   * Creates the device with an empty filesystem and mounts it.
   * @throws Error with the message of the tool that failed.
   */
  static async create(options: FlakeyDiskOptions): Promise<FlakeyDisk> {
    const disk = new FlakeyDisk(options);
    await disk.#run(CREATE);
    return disk;
  }

  async stop(): Promise<number> {
    // A cut may follow a stall.
    this.#isStalled = false;
    await this.#run(STOP);
    if (this.killsTarget) await this.#dropWrites();
    return 0;
  }

  /** @throws Error when the disk was not stopped until now: what came after `stop` may be confirmed. */
  async resume(): Promise<void> {
    if (!this.killsTarget) await this.#dropWrites();
  }

  async #dropWrites(): Promise<void> {
    const output = await this.#run(RESUME);
    if (output.includes(NOT_SUSPENDED)) throw new Error(RESUMED_EARLY);
  }

  async cut(): Promise<CutReport> {
    const startMs = performance.now();
    const output = await this.#run(CUT);
    const unflushedWrites = Number(/^dropped (\d+)$/m.exec(output)?.[1] ?? 0);
    const tookMs = Math.round(performance.now() - startMs);
    return {
      unflushedWrites,
      detail: `power cut by dm-flakey, ${unflushedWrites} writes dropped`,
      tookMs: { drop: 0, image: 0, record: 0, mount: tookMs },
    };
  }

  /** Unmounts and removes the device. It may be called twice. */
  async remove(): Promise<void> {
    await this.#run(REMOVE);
  }

  #run(script: string): Promise<string> {
    const { host, device, name, mountPoint, filesystem, killAll } = this.#options;
    const mapped = `/dev/mapper/${name}`;
    const filled = script
      .replace('MAKE', () => shellQuote(mkfsCommand(filesystem, device)))
      .replace('MOUNT', () => shellQuote(mountCommand(filesystem, mapped, mountPoint)))
      .replace('KILL', () => killAll ?? '');
    return runScript(host, filled, [device, name, mountPoint], SCRIPT_TIMEOUT_MS);
  }
}

function shellQuote(args: readonly string[]): string {
  return args.map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(' ');
}

/** Makes a name for a device that no other run uses. */
export function flakeyDeviceName(runId: string): string {
  return `plugpull-${runId}-${randomBytes(2).toString('hex')}`;
}

const PROBE_DM_FLAKEY = `
modprobe dm-flakey 2>/dev/null || true
dmsetup targets | grep -q '^flakey '`;

/** Reports whether a host has dmsetup and a kernel with dm-flakey. */
export async function flakeyAvailability(host: CommandHost): Promise<Availability> {
  const unavailable = (why: string, remedy: string): Availability => ({ available: false, why, remedy });
  const installed = await host.run(['sh', '-c', 'command -v dmsetup'], SCRIPT_TIMEOUT_MS);
  if (installed.code !== 0) return unavailable('dmsetup is not installed', 'apt-get install dmsetup');
  const target = await host.run(['sh', '-c', PROBE_DM_FLAKEY], SCRIPT_TIMEOUT_MS);
  if (target.code === 0) return { available: true };
  return unavailable(
    'the kernel has no device mapper with dm-flakey',
    'use --runtime vm, whose kernel has it, or --power blocklog',
  );
}

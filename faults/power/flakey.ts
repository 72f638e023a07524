import { randomBytes } from 'node:crypto';
import type { Availability, CutReport, PowerDisk, WriteErrorInjector } from '../fault.js';
import type { Filesystem } from './filesystem.js';
import { mkfsCommand, mountCommand } from './filesystem.js';
import { type CommandHost, runScript } from './host.js';

export interface FlakeyDiskOptions {
  /** The machine whose kernel holds the device. */
  host: CommandHost;
  /** A block device that is nobody else's; everything on it is lost. */
  device: string;
  /** Of the device below /dev/mapper; carries the run's id. */
  name: string;
  /** Where the filesystem appears; made if it is not there. */
  mountPoint: string;
  filesystem: Filesystem;
  /**
   * Shell lines that end every process of the target on that machine, done while the disk stands still; undefined when
   * the caller ends them between `stop` and `resume`.
   */
  killAll?: string;
}

const SCRIPT_TIMEOUT_MS = 60_000;
/** A table that is left for a minute before it changes by itself, which it never does: down is 0 s. */
const HEALTHY_TABLE = '60 0';
/** Down for ever: writes are dropped and answered as if they had been done, and so are flushes. */
const DROPPING_TABLE = '0 60 1 drop_writes';
/** Likewise, and every write and flush is answered with EIO. */
const FAILING_TABLE = '0 60 1 error_writes';

/**
 * Without udev nobody makes the nodes of /dev/mapper or answers the cookie that dmsetup waits for. `load` puts a table
 * ($1: its last words) in place of the one in use, without asking the filesystem to write anything first.
 */
const SHELL_FUNCTIONS = `
quiet() { "$@" >/dev/null; }
table() { echo "0 $(blockdev --getsz "$device") flakey $device 0 $*"; }
load() { quiet dmsetup load "$name" --table "$(table "$@")"; }
suspend() { quiet dmsetup suspend --nolockfs --noudevsync "$name"; }
resume() { quiet dmsetup resume --noudevsync "$name"; }
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
unused() {
  users=$(dmsetup info -c --noheadings -o open "$name" | tr -d ' ')
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

/** The kernel waits for what is on its way to the device and keeps the rest back; nothing is written out for this. */
const STOP = `${SCRIPT_HEAD}
suspend
KILL`;

const RESUME = `${SCRIPT_HEAD}
load ${DROPPING_TABLE}
resume`;

/**
 * The unmount writes what is dirty into nothing. A device that is still in use afterwards would keep dirty pages alive,
 * which then survive the cut: that is an error, not a pass.
 */
const CUT = `${SCRIPT_HEAD}
before=$(writes)
away
unused
echo "dropped $(($(writes) - before))"
change ${HEALTHY_TABLE}
MOUNT`;

/** Counted while it stands still: a writer that stops at its first error is not to fail before the count. */
const START_FAILING = `${SCRIPT_HEAD}
suspend
load ${FAILING_TABLE}
writes
resume`;

const COUNT_WRITES = `${SCRIPT_HEAD}
writes`;

const STOP_FAILING = `${SCRIPT_HEAD}
change ${HEALTHY_TABLE}`;

/** While writes still fail the unmount loses what is dirty, as at a cut. */
const REMOUNT = `${SCRIPT_HEAD}
away
unused
change ${HEALTHY_TABLE}
MOUNT`;

const REMOVE = `${SCRIPT_HEAD}
away
if dmsetup info "$name" >/dev/null 2>&1; then quiet dmsetup remove --retry --noudevsync "$name"; fi`;

/**
 * A disk behind dm-flakey. A cut drops every write from its moment on; what the filesystem had handed to the disk before
 * stays, flushed or not: it cannot reorder, tear, or lose what a drive had cached.
 */
export class FlakeyDisk implements PowerDisk {
  readonly backend = 'flakey';
  readonly killsTarget: boolean;
  readonly writeErrors: WriteErrorInjector;
  readonly #options: FlakeyDiskOptions;
  /** Writes to the device before they began to fail. */
  #writesBefore = 0;

  private constructor(options: FlakeyDiskOptions) {
    this.#options = options;
    this.killsTarget = options.killAll !== undefined;
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

  /** Makes the device with an empty filesystem and mounts it. @throws Error with the words of the tool that failed. */
  static async create(options: FlakeyDiskOptions): Promise<FlakeyDisk> {
    const disk = new FlakeyDisk(options);
    await disk.#run(CREATE);
    return disk;
  }

  async stop(): Promise<number> {
    await this.#run(STOP);
    if (this.killsTarget) await this.#run(RESUME);
    return 0;
  }

  async resume(): Promise<void> {
    if (!this.killsTarget) await this.#run(RESUME);
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

  /** Unmounts and removes the device; may be called twice. */
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

/** A name for a device that no other run has. */
export function flakeyDeviceName(runId: string): string {
  return `plugpull-${runId}-${randomBytes(2).toString('hex')}`;
}

const PROBE_DM_FLAKEY = `
modprobe dm-flakey 2>/dev/null || true
dmsetup targets | grep -q '^flakey '`;

/** Whether a host has dmsetup and a kernel with dm-flakey. */
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

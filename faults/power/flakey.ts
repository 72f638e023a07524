import { randomBytes } from 'node:crypto';
import type { Availability, CutReport, FailingWrites, PowerDisk } from '../fault.js';
import type { Filesystem } from './filesystem.js';
import { makeCommand, mountCommand } from './filesystem.js';
import { type CommandHost, runScript } from './host.js';

export interface FlakeyPlan {
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

const TIMEOUT_MS = 60_000;
/** A table that is left for a minute before it changes by itself, which it never does: down is 0 s. */
const HEALTHY = '60 0';
/** Down for ever: writes are dropped and answered as if they had been done, and so are flushes. */
const DROPPING = '0 60 1 drop_writes';
/** Likewise, and every write and flush is answered with EIO. */
const FAILING = '0 60 1 error_writes';

/**
 * Without udev nobody makes the nodes of /dev/mapper or answers the cookie that dmsetup waits for. `load` puts a table
 * ($1: its last words) in place of the one in use, without asking the filesystem to write anything first.
 */
const LIBRARY = `
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
const HEAD = `device=$1; name=$2; mount=$3; ${LIBRARY}`;

const CREATE = `${HEAD}
modprobe dm-flakey 2>/dev/null || true
away
if dmsetup info "$name" >/dev/null 2>&1; then quiet dmsetup remove --retry --noudevsync "$name"; fi
mkdir -p "$mount"
MAKE
quiet dmsetup create "$name" --noudevsync --table "$(table ${HEALTHY})"
quiet dmsetup mknodes
MOUNT
`;

/** The kernel waits for what is on its way to the device and keeps the rest back; nothing is written out for this. */
const STOP = `${HEAD}
suspend
KILL`;

const RESUME = `${HEAD}
load ${DROPPING}
resume`;

/**
 * The unmount writes what is dirty into nothing. A device that is still in use afterwards would keep dirty pages alive,
 * which then survive the cut: that is an error, not a pass.
 */
const CUT = `${HEAD}
before=$(writes)
away
unused
echo "dropped $(($(writes) - before))"
change ${HEALTHY}
MOUNT`;

/** Counted while it stands still: a writer that stops at its first error is not to fail before the count. */
const FAIL = `${HEAD}
suspend
load ${FAILING}
writes
resume`;

const COUNT = `${HEAD}
writes`;

const WELL = `${HEAD}
change ${HEALTHY}`;

/** While writes still fail the unmount loses what is dirty, as at a cut. */
const REMOUNT = `${HEAD}
away
unused
change ${HEALTHY}
MOUNT`;

const REMOVE = `${HEAD}
away
if dmsetup info "$name" >/dev/null 2>&1; then quiet dmsetup remove --retry --noudevsync "$name"; fi`;

/**
 * A disk behind dm-flakey. A cut drops every write from its moment on; what the filesystem had handed to the disk before
 * stays, flushed or not: it cannot reorder, tear, or lose what a drive had cached.
 */
export class FlakeyDisk implements PowerDisk {
  readonly backend = 'flakey';
  readonly endsTarget: boolean;
  readonly failingWrites: FailingWrites;
  readonly #plan: FlakeyPlan;
  /** Writes to the device before they began to fail. */
  #writesBefore = 0;

  private constructor(plan: FlakeyPlan) {
    this.#plan = plan;
    this.endsTarget = plan.killAll !== undefined;
    this.failingWrites = {
      begin: async () => {
        this.#writesBefore = Number(await this.#run(FAIL));
      },
      count: async () => Number(await this.#run(COUNT)) - this.#writesBefore,
      end: async () => {
        await this.#run(WELL);
      },
      remount: async () => {
        await this.#run(REMOUNT);
      },
    };
  }

  /** Makes the device with an empty filesystem and mounts it. @throws Error with the words of the tool that failed. */
  static async create(plan: FlakeyPlan): Promise<FlakeyDisk> {
    const disk = new FlakeyDisk(plan);
    await disk.#run(CREATE);
    return disk;
  }

  async stop(): Promise<number> {
    await this.#run(STOP);
    if (this.endsTarget) await this.#run(RESUME);
    return 0;
  }

  async resume(): Promise<void> {
    if (!this.endsTarget) await this.#run(RESUME);
  }

  async cut(): Promise<CutReport> {
    const startMs = performance.now();
    const said = await this.#run(CUT);
    const unflushedWrites = Number(/^dropped (\d+)$/m.exec(said)?.[1] ?? 0);
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
    const { host, device, name, mountPoint, filesystem, killAll } = this.#plan;
    const mapped = `/dev/mapper/${name}`;
    const filled = script
      .replace('MAKE', () => shellWords(makeCommand(filesystem, device)))
      .replace('MOUNT', () => shellWords(mountCommand(filesystem, mapped, mountPoint)))
      .replace('KILL', () => killAll ?? '');
    return runScript(host, filled, [device, name, mountPoint], TIMEOUT_MS);
  }
}

function shellWords(words: readonly string[]): string {
  return words.map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(' ');
}

/** A name for a device that no other run has. */
export function flakeyName(runId: string): string {
  return `plugpull-${runId}-${randomBytes(2).toString('hex')}`;
}

const TARGET_SCRIPT = `
modprobe dm-flakey 2>/dev/null || true
dmsetup targets | grep -q '^flakey '`;

/** Whether a host has dmsetup and a kernel with dm-flakey. */
export async function flakeyAvailability(host: CommandHost): Promise<Availability> {
  const no = (why: string, remedy: string): Availability => ({ available: false, why, remedy });
  const installed = await host.run(['sh', '-c', 'command -v dmsetup'], TIMEOUT_MS);
  if (installed.code !== 0) return no('dmsetup is not installed', 'apt-get install dmsetup');
  const target = await host.run(['sh', '-c', TARGET_SCRIPT], TIMEOUT_MS);
  if (target.code === 0) return { available: true };
  return no(
    'the kernel has no device mapper with dm-flakey',
    'use --runtime vm, whose kernel has it, or --power blocklog',
  );
}
